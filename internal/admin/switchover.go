package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Switcher changes the primary on purpose.
type Switcher interface {
	// Switchover changes it, and calls tell after each step. An error says what has become of everything.
	Switchover(ctx context.Context, request SwitchoverRequest, tell func(SwitchoverStep)) error
}

// SwitchoverRequest is what POST /switchover asks for, as parameters of those names. Zeros are left to the Switcher.
type SwitchoverRequest struct {
	To      string        // to: the name of the standby that takes over.
	Promote bool          // promote: have it promoted by the proxy.
	Finish  time.Duration // finish: for transactions under way.
	CatchUp time.Duration // catch_up: for the standby.
	Wait    time.Duration // wait: for the promotion.
}

// SwitchoverStep is a line of the answer, which comes when the step has been taken. The last one is done or failed.
type SwitchoverStep struct {
	Step    string  `json:"step"`
	Text    string  `json:"text"`
	Seconds float64 `json:"seconds"` // Since the step before; of the last one: how long transactions were held in all.
}

// The last steps.
const (
	SwitchoverDone   = "done"
	SwitchoverFailed = "failed"
)

// longestPhase bounds what a request may ask for.
const longestPhase = time.Hour

// switchover answers line by line, for as long as it takes. Whoever hangs up gives the switchover up, as far as that is possible.
func (s *Server) switchover(w http.ResponseWriter, r *http.Request) {
	request, err := readSwitchover(r)
	if err != nil {
		s.json(w, http.StatusBadRequest, SwitchoverStep{Step: SwitchoverFailed, Text: err.Error()})
		return
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // A writer without deadlines has none to be lifted.
	_ = control.SetWriteDeadline(time.Time{})
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	var mu sync.Mutex // Held while a line is written, which the socket's buffer takes.
	encoder := json.NewEncoder(w)
	tell := func(step SwitchoverStep) {
		mu.Lock()
		defer mu.Unlock()
		s.wrote(0, encoder.Encode(step))
		_ = control.Flush() // Who is not there any more ends the request's context.
	}
	if err := s.cfg.Switcher.Switchover(r.Context(), request, tell); err != nil {
		tell(SwitchoverStep{Step: SwitchoverFailed, Text: err.Error()})
	}
}

func readSwitchover(r *http.Request) (request SwitchoverRequest, err error) {
	values := r.URL.Query()
	request.To = values.Get("to")
	if text := values.Get("promote"); text != "" {
		if request.Promote, err = strconv.ParseBool(text); err != nil {
			return request, fmt.Errorf("promote: %q is neither true nor false", text)
		}
	}
	for name, to := range map[string]*time.Duration{"finish": &request.Finish, "catch_up": &request.CatchUp, "wait": &request.Wait} {
		text := values.Get(name)
		if text == "" {
			continue
		}
		if *to, err = time.ParseDuration(text); err != nil || *to <= 0 || *to > longestPhase {
			return request, fmt.Errorf("%s: %q is not a time such as 5s", name, text)
		}
	}
	return request, nil
}
