package main

import (
	"context"
	"log/slog"

	"pgsidecar/internal/admin"
	"pgsidecar/internal/config"
)

// Reload implements admin.Control. All of a new configuration is applied or nothing of it; what needs a restart stays as
// it is and is told. Certificates and users are read again even if no key has changed.
func (p *process) Reload(ctx context.Context) ([]admin.Change, error) {
	select {
	case p.reloading <- struct{}{}:
		defer func() { <-p.reloading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	changes, err := p.apply()
	if err != nil {
		p.mu.Lock()
		p.mu.state.Failed = true
		p.mu.Unlock()
		p.log.ErrorContext(ctx, "configuration not reloaded, everything stays as it was", slog.Any("error", err))
		return nil, err
	}
	told := make([]admin.Change, len(changes))
	for i, c := range changes {
		told[i] = admin.Change{Key: c.Key, From: c.From, To: c.To, Live: c.Live}
		p.log.InfoContext(ctx, "configuration changed",
			slog.String("key", c.Key), slog.String("from", c.From), slog.String("to", c.To), slog.Bool("needs_restart", !c.Live))
	}
	p.log.InfoContext(ctx, "configuration reloaded", slog.Int("changes", len(changes)))
	return told, nil
}

// apply loads the configuration and puts it in force.
func (p *process) apply() ([]config.Change, error) {
	loaded, err := p.load()
	if err != nil {
		return nil, err
	}
	merged, changes := config.Merge(p.running(), loaded)
	if err := p.parts.reload(merged); err != nil {
		return nil, err
	}
	p.level.Set(logLevel(merged.Log.Level))
	p.adopt(merged)
	return changes, nil
}
