package admin

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/pprof"
)

// routes returns what is served. What changes the proxy or shows its insides goes through local; the rest may be open to
// the kubelet and to Prometheus.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("GET /{$}", s.page)
	if s.cfg.Metrics != nil {
		mux.Handle("GET /metrics", s.cfg.Metrics)
	}
	mux.Handle("POST /reload", local(s.reload))
	mux.Handle("POST /drain", local(s.drain))
	if s.cfg.Holder != nil {
		mux.Handle("POST /hold", local(s.hold))
		mux.Handle("POST /resume", local(s.resume))
	}
	if s.cfg.Switcher != nil {
		mux.Handle("POST /switchover", local(s.switchover))
	}
	if s.cfg.Targets != nil {
		mux.Handle("POST /targets/{name}/drain", local(s.onTarget(s.cfg.Targets.DrainTarget)))
		mux.Handle("POST /targets/{name}/restore", local(s.onTarget(s.cfg.Targets.RestoreTarget)))
	}
	if s.cfg.QuitQuitQuit {
		mux.Handle("POST /quitquitquit", local(s.drain))
	}
	terminating := local(s.podTerminating)
	if s.cfg.PodTerminating {
		terminating = http.HandlerFunc(s.podTerminating)
	}
	mux.Handle("GET /pod-terminating", terminating) // What the kubelet sends for preStop: httpGet.
	mux.Handle("POST /pod-terminating", terminating)
	mux.Handle("GET /debug/pprof/", local(pprof.Index))
	mux.Handle("GET /debug/pprof/cmdline", local(pprof.Cmdline))
	mux.Handle("GET /debug/pprof/profile", local(pprof.Profile))
	mux.Handle("GET /debug/pprof/symbol", local(pprof.Symbol))
	mux.Handle("GET /debug/pprof/trace", local(pprof.Trace))
	// A web page that a developer has open may post to loopback as well; its requests name their origin.
	return http.NewCrossOriginProtection().Handler(mux)
}

func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	s.text(w, http.StatusOK, "alive")
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	if err := s.control.Ready(); err != nil {
		s.text(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	s.text(w, http.StatusOK, "ready")
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	s.json(w, http.StatusOK, s.currentStatus())
}

// reloaded is the answer to POST /reload.
type reloaded struct {
	Error   string   `json:"error,omitempty"` // Why nothing was changed; may have several lines.
	Changes []Change `json:"changes"`
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) {
	changes, err := s.control.Reload(r.Context())
	if err != nil {
		s.json(w, http.StatusUnprocessableEntity, reloaded{Error: err.Error()})
		return
	}
	s.json(w, http.StatusOK, reloaded{Changes: changes})
}

func (s *Server) drain(w http.ResponseWriter, _ *http.Request) {
	s.control.Drain()
	s.json(w, http.StatusAccepted, s.currentStatus())
}

func (s *Server) hold(w http.ResponseWriter, _ *http.Request) {
	s.cfg.Holder.Hold("an operator holds them")
	s.json(w, http.StatusOK, s.currentStatus())
}

func (s *Server) resume(w http.ResponseWriter, _ *http.Request) {
	if !s.cfg.Holder.Resume() {
		s.text(w, http.StatusConflict, "no operator holds transactions")
		return
	}
	s.json(w, http.StatusOK, s.currentStatus())
}

func (s *Server) onTarget(do func(ctx context.Context, name string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := do(r.Context(), r.PathValue("name")); err != nil {
			s.text(w, http.StatusConflict, err.Error())
			return
		}
		s.json(w, http.StatusOK, s.currentStatus())
	}
}

func (s *Server) podTerminating(w http.ResponseWriter, _ *http.Request) {
	s.control.Notice()
	s.text(w, http.StatusOK, "noticed")
}

func (s *Server) text(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	s.wrote(w.Write([]byte(text + "\n")))
}

func (s *Server) json(w http.ResponseWriter, code int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	s.wrote(0, encoder.Encode(value))
}

// wrote notes a response that did not reach its reader, who has left.
func (s *Server) wrote(_ int, err error) {
	if err != nil {
		s.log.Debug("http response not written", slog.Any("error", err))
	}
}
