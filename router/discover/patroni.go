package discover

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// PatroniConfig says where Patroni is asked. The zero values of the durations mean the defaults named with them.
type PatroniConfig struct {
	// URLs are those of the members' REST APIs, such as http://10.0.0.1:8008. They are asked one after the other until one answers.
	URLs []string
	// Username and Password are sent to the hosts of URLs only, and if they are set.
	Username, Password string
	TLS                *tls.Config   // for https; nil: the system's authorities
	Every              time.Duration // between attempts, about; 5 s
	Timeout            time.Duration // for one request; 1 s
}

// Patroni is the source of the members of a cluster that Patroni runs. It is an authority, with care: the leader that one member
// names is confirmed only if the leader itself says that it holds the lock, and that there is none only if nobody that answers knows one.
// Otherwise the members are known, but neither confirmed nor vetoed.
type Patroni struct {
	rounds

	config PatroniConfig
	known  []*url.URL // those of the configuration
	urls   []*url.URL // the same; Run's goroutine puts the one that has answered last to the front
	client *http.Client
}

// NewPatroni returns the source; an error names a URL that is none.
func NewPatroni(config PatroniConfig) (*Patroni, error) {
	if len(config.URLs) == 0 {
		return nil, errors.New("find Patroni: there is no URL")
	}
	if config.Timeout <= 0 {
		config.Timeout = time.Second
	}
	p := &Patroni{rounds: newRounds(config.Every, 5*time.Second), config: config}
	for _, text := range config.URLs {
		u, err := url.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("parse URL of Patroni: %w", err)
		}
		if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("parse URL of Patroni: %q is not like http://host:8008", text)
		}
		p.known = append(p.known, u)
	}
	p.urls = slices.Clone(p.known)
	p.client = &http.Client{
		// No proxy of the environment: it is for the way to the Internet.
		Transport: &http.Transport{TLSClientConfig: config.TLS, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	return p, nil
}

// Run implements Source.
func (p *Patroni) Run(ctx context.Context, publish func(Snapshot)) {
	defer p.client.CloseIdleConnections()
	p.run(ctx, publish, p.ask)
}

// cluster is the answer to GET /cluster, as far as it is used.
type cluster struct {
	Members []struct {
		Name     string
		Role     string
		Host     string
		Port     uint16
		Timeline uint32
		API      string `json:"api_url"`
	}
}

func (p *Patroni) ask(ctx context.Context, _ []Target) (Snapshot, error) {
	var errs []error
	for i, u := range p.urls {
		s, api, err := p.members(ctx, u)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p.urls = slices.Insert(slices.Delete(p.urls, i, i+1), 0, u)
		if s.Leader != "" {
			s.Authority = p.holdsLock(ctx, api)
		} else {
			s.Authority = p.nobodyLeads(ctx, p.urls[1:])
		}
		if !s.Authority {
			s.Leader = ""
		}
		return s, nil
	}
	return Snapshot{}, errors.Join(errs...)
}

// members asks one member for all, and which of them leads, with the URL of that one's API.
func (p *Patroni) members(ctx context.Context, at *url.URL) (s Snapshot, api string, err error) {
	var answer cluster
	if err := p.get(ctx, at.JoinPath("cluster"), &answer); err != nil {
		return s, "", err
	}
	for _, m := range answer.Members {
		if m.Host == "" || m.Port == 0 {
			continue // It has not told yet where it is.
		}
		t := Target{Name: m.Name, Host: m.Host, Port: m.Port, Timeline: m.Timeline, Role: Standby}
		switch m.Role {
		case "leader", "master", "primary":
			if s.Leader != "" {
				return s, "", fmt.Errorf("ask Patroni at %s: it names two leaders", at.Host)
			}
			t.Role, s.Leader, api = Primary, cmp.Or(t.Name, t.Addr()), m.API
		}
		s.Targets = append(s.Targets, t)
	}
	s.Targets = named(s.Targets)
	slices.SortFunc(s.Targets, func(a, b Target) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(s.Targets); i++ {
		if s.Targets[i].Name == s.Targets[i-1].Name {
			return s, "", fmt.Errorf("ask Patroni at %s: it names two members %q", at.Host, s.Targets[i].Name)
		}
	}
	if len(s.Targets) == 0 {
		return s, "", fmt.Errorf("ask Patroni at %s: %w", at.Host, ErrEmpty)
	}
	return s, api, nil
}

// holdsLock asks the leader itself.
func (p *Patroni) holdsLock(ctx context.Context, api string) bool {
	u, err := url.Parse(api)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return false
	}
	u.Path = "/primary"
	return p.get(ctx, u, nil) == nil
}

// nobodyLeads asks the other members whether they, too, know no leader.
func (p *Patroni) nobodyLeads(ctx context.Context, others []*url.URL) bool {
	for _, u := range others {
		if s, _, err := p.members(ctx, u); err == nil && s.Leader != "" {
			return false
		}
	}
	return true
}

// longestAnswer bounds what is read of an answer; a cluster of ten members has some 3 kB.
const longestAnswer = 1 << 20

// get asks for a document, which must come with status 200, and decodes it unless into is nil.
func (p *Patroni) get(ctx context.Context, u *url.URL, into any) error {
	ctx, cancel := context.WithTimeout(ctx, p.config.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return fmt.Errorf("ask Patroni at %s: %w", u.Host, err)
	}
	p.authenticate(request)
	response, err := p.client.Do(request)
	if err != nil {
		return fmt.Errorf("ask Patroni: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, longestAnswer))
	if err != nil {
		return fmt.Errorf("ask Patroni at %s: %w", u.Host, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask Patroni at %s: status %s", u.Host, response.Status)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("ask Patroni at %s: %w", u.Host, err)
	}
	return nil
}

// authenticate adds the credentials to a request to one of the configured hosts.
func (p *Patroni) authenticate(request *http.Request) {
	u := request.URL
	known := slices.ContainsFunc(p.known, func(k *url.URL) bool { return k.Scheme == u.Scheme && k.Host == u.Host })
	if known && p.config.Username != "" {
		request.SetBasicAuth(p.config.Username, p.config.Password)
	}
}
