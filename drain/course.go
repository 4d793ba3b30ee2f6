package drain

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"pgsidecar/proxy/stats"
)

// lookEvery is how often it is looked whether the last client has left while there are some. How long they have been
// gone is the proxy's own count, so that nothing is missed in between.
const lookEvery = 100 * time.Millisecond

// course is the state of one Run, and belongs to its goroutine.
type course struct {
	life   *Life
	phase  stats.Phase
	since  time.Time   // When the phase began.
	timer  *time.Timer // When to look again in Lingering; in Closing, when patience ends.
	config Config
	told   bool // By a signal; the next one forces.
	report Report

	cut     context.CancelFunc // Ends the shutdown's patience; nil before Draining.
	drained chan bool          // Whether it was late: one value, from the goroutine that shuts down.
	wg      sync.WaitGroup
}

func newCourse(l *Life) *course {
	c := &course{life: l, phase: stats.Serving, since: time.Now(), timer: time.NewTimer(0), drained: make(chan bool, 1)}
	c.timer.Stop()
	return c
}

// stop ends what the course has started. A proxy that is stuck in its shutdown is not waited for.
func (c *course) stop() {
	c.timer.Stop()
	if c.cut != nil {
		c.cut()
	}
	if c.phase != stats.Closing {
		c.wg.Wait()
	}
}

// hear does what a word asks for in the phase of now.
func (c *course) hear(ctx context.Context, a ask) {
	switch a.word {
	case notice:
		if c.phase == stats.Serving {
			c.enter(stats.Noticed)
		}
	case drainNow:
		c.drain(ctx, a.config)
	case terminate:
		switch {
		case c.told:
			c.force(ctx, a.config)
		case a.config.Linger > 0:
			c.linger(ctx, a.config)
		default:
			c.drain(ctx, a.config)
		}
		c.told = true
	}
}

func (c *course) enter(phase stats.Phase) {
	c.phase, c.since = phase, time.Now()
	c.life.proxy.Enter(phase)
}

func (c *course) linger(ctx context.Context, config Config) {
	if c.phase >= stats.Lingering {
		return
	}
	c.config = config
	c.enter(stats.Lingering)
	c.look(ctx)
}

// look drains when the application is done or its time is up, or says when to look again.
func (c *course) look(ctx context.Context) {
	now := time.Now()
	last := c.since.Add(c.config.Linger)
	next := now.Add(lookEvery)
	if emptied := c.life.proxy.Emptied(); !emptied.IsZero() {
		next = later(emptied.Add(c.config.Quiet), c.since.Add(c.config.MinLinger))
	}
	if next.After(last) {
		next = last
	}
	if !next.After(now) {
		c.drain(ctx, c.config)
		return
	}
	c.timer.Reset(next.Sub(now))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (c *course) drain(ctx context.Context, config Config) {
	if c.phase >= stats.Draining {
		return
	}
	if c.phase == stats.Lingering {
		c.report.Lingered = time.Since(c.since)
	}
	c.config = config
	c.enter(stats.Draining)
	c.timer.Reset(config.Timeout + closeWithin) // The one deadline; close and force bring it nearer.
	ctx, c.cut = context.WithTimeout(context.WithoutCancel(ctx), config.Timeout)
	c.wg.Go(func() { c.run(ctx) })
}

// run is the goroutine that shuts the proxy down. It ends with the last client, at the deadline or when it is forced to.
func (c *course) run(ctx context.Context) {
	err := c.life.proxy.Shutdown(ctx)
	c.drained <- err != nil
}

// force cuts everything now.
func (c *course) force(ctx context.Context, config Config) {
	c.report.Forced = true
	c.drain(ctx, config)
	c.cut()
	c.timer.Reset(closeWithin)
}

// close notes that the last client has left, or was cut, and that only the proxy's own end is left.
func (c *course) close(late bool) {
	c.wg.Wait() // It has sent its last word.
	c.report.Drained = time.Since(c.since)
	c.report.Late = late && !c.report.Forced
	c.phase, c.since = stats.Closing, time.Now()
	c.timer.Reset(closeWithin)
}

// expire does what the timer was set for. It reports whether patience has ended.
func (c *course) expire(ctx context.Context) bool {
	if c.phase == stats.Lingering {
		c.look(ctx)
		return false
	}
	c.life.log.ErrorContext(ctx, "the end has taken too long", slog.String("phase", c.phase.String()), slog.Duration("in_phase", time.Since(c.since)))
	c.phase = stats.Closing // Its goroutine may never end.
	return true
}

// end notes what the proxy's end has left open: it may come before its shutdown has been heard of.
func (c *course) end() Report {
	if c.phase == stats.Draining {
		c.close(<-c.drained)
	}
	return c.report
}
