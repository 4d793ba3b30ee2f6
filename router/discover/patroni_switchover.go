package discover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// ErrRefused says that a cluster will not do what it was asked for, and has done nothing.
var ErrRefused = errors.New("refused")

// Switchover asks Patroni to make another member the leader, and returns when it has done so, refused, or failed. Each of the two
// members may be known under several addresses. Any goroutine may call it.
func (p *Patroni) Switchover(ctx context.Context, from, to []Target) error {
	at, members, err := p.whoever(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	leader, candidate := among(members, from), among(members, to)
	if leader == "" || candidate == "" {
		return fmt.Errorf("%w: Patroni does not know the servers by the addresses that are used here", ErrRefused)
	}
	body, err := json.Marshal(map[string]string{"leader": leader, "candidate": candidate})
	if err != nil {
		return fmt.Errorf("ask Patroni for a switchover: %w", err)
	}
	return p.post(ctx, at.JoinPath("switchover"), body)
}

// whoever returns the members as the first one tells them that answers.
func (p *Patroni) whoever(ctx context.Context) (*url.URL, []Target, error) {
	var errs []error
	for _, u := range p.known {
		s, _, err := p.members(ctx, u)
		if err == nil {
			return u, s.Targets, nil
		}
		errs = append(errs, err)
	}
	return nil, nil, errors.Join(errs...)
}

// among returns the name of the member that has one of the addresses, "" if none has.
func among(members, addresses []Target) string {
	for _, m := range members {
		for _, a := range addresses {
			if m.Addr() == a.Addr() {
				return m.Name
			}
		}
	}
	return ""
}

// post asks for a change. Patroni answers when it has been made.
func (p *Patroni) post(ctx context.Context, u *url.URL, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask Patroni at %s: %w", u.Host, err)
	}
	request.Header.Set("Content-Type", "application/json")
	p.authenticate(request)
	response, err := p.client.Do(request)
	if err != nil {
		return fmt.Errorf("ask Patroni: %w", err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, longestAnswer)) // What is not there is not quoted.
	said := fmt.Errorf("ask Patroni at %s: status %s: %s", u.Host, response.Status, strings.TrimSpace(string(text)))
	switch response.StatusCode / 100 {
	case 2:
		return nil
	case 4:
		return fmt.Errorf("%w: %w", ErrRefused, said)
	}
	return said
}
