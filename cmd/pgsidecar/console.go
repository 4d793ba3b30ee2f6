package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"pgsidecar/internal/config"
	"pgsidecar/internal/console"
)

// newConsole makes the console of a process whose proxy is not made yet.
func newConsole(r *routing, life *lifeline, log *slog.Logger) *console.Console {
	return console.New(console.Config{
		Version: build().Version, Source: r, Control: &controls{r, life},
		Settings: life.settings, Users: life.admins,
	}, log)
}

// lifeline leads from the console, which belongs to the proxy, to the process, which is made after it.
type lifeline struct{ process *process } // Set before anybody is served.

// settings returns the configuration in force.
func (l *lifeline) settings() []console.Setting {
	settings := config.Settings(l.process.running())
	all := make([]console.Setting, 0, len(settings))
	for _, s := range settings {
		all = append(all, console.Setting{Key: s.Key, Value: s.Value, Default: s.Default, Changeable: s.Live})
	}
	return all
}

// admins returns who may use the console.
func (l *lifeline) admins() []string {
	c := l.process.running()
	if len(c.Admin.Users) > 0 {
		return c.Admin.Users
	}
	upstream, err := pgconn.ParseConfig(c.Upstream.URL.Reveal())
	if err != nil {
		return nil // It was understood when it was put in force.
	}
	return []string{upstream.User}
}

// controls is what the console may do.
type controls struct {
	*routing

	life *lifeline
}

// busyEvery is how often a pause looks whether a transaction is under way.
const busyEvery = 10 * time.Millisecond

// Pause implements console.Control.
func (c *controls) Pause(ctx context.Context) error {
	c.Hold("an operator has paused them")
	tick := time.NewTicker(busyEvery)
	defer tick.Stop()
	for {
		n, err := c.Busy(ctx)
		if err == nil && n == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.Resume()
			return fmt.Errorf("pause: %w", ctx.Err())
		}
	}
}

// Do implements console.Control.
func (c *controls) Do(ctx context.Context, word console.Word) error {
	switch word {
	case console.Reload:
		_, err := c.life.process.Reload(ctx)
		return err
	case console.Reconnect:
		c.Recycle("an operator wants new connections")
	case console.Drain:
		c.life.process.Drain()
	}
	return nil
}
