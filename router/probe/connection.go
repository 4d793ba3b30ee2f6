package probe

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// errOutdated says that sessions which begin now find another default_transaction_read_only than this one did.
var errOutdated = errors.New("the settings of new sessions have changed")

// connection answers probes over one link at a time, which it keeps open as long as it is sound. Run's goroutine owns it.
type connection struct {
	config *Config
	link   *link // nil: none

	counted  Observation // the last one with a census
	caughtUp Observation // the last one of a standby that had replayed all it had received, zero if there was none
	past     past
}

// past is the history that was read last: that of a timeline never changes.
type past struct {
	at       time.Time // when it was asked for
	systemID uint64
	timeline uint32
	switches []TimelineSwitch
}

func (c *connection) lost() <-chan answer {
	if c.link == nil {
		return nil
	}
	return c.link.answers
}

func (c *connection) close() { c.drop(true) }

func (c *connection) drop(sound bool) {
	if c.link != nil {
		c.link.close(sound)
		c.link = nil
	}
}

// ask implements asker.
func (c *connection) ask(ctx context.Context) *Observation {
	begin := time.Now()
	ctx, cancel := context.WithDeadline(ctx, begin.Add(c.config.Timeout))
	defer cancel()
	o := Observation{}
	kept := c.link != nil
	err := c.inquire(ctx, &o)
	if kept && err != nil && ctx.Err() == nil && !isError(err) {
		// That the old connection has broken says little: the server may have been restarted since.
		o = Observation{}
		err = c.inquire(ctx, &o)
	}
	if err != nil {
		o = Observation{Err: err, Reason: classify(err)}
	}
	o.At = time.Now()
	o.Took = o.At.Sub(begin)
	if err == nil {
		c.remember(&o)
	}
	return &o
}

// inquire asks over the link, or over a new one. After an error there is no link.
func (c *connection) inquire(ctx context.Context, o *Observation) (err error) {
	if c.link == nil {
		if c.link, err = c.config.open(ctx, nil); err != nil {
			return err
		}
	}
	defer func() {
		if err != nil {
			c.drop(isError(err) || errors.Is(err, errOutdated))
		}
	}()
	if err := c.inquireParts(ctx, o); err != nil {
		return err
	}
	if !c.link.known {
		c.link.known = true
		if c.link.server.aurora || c.link.server.rds {
			if err := c.inquireParts(ctx, o); err != nil {
				return err
			}
		}
	}
	o.SystemID, o.Instance, o.Since = c.link.server.systemID, c.link.server.instance, c.link.since
	o.History = c.historyOf(ctx, o)
	return nil
}

// inquireParts asks what is wanted now. A part that the server cannot answer is not asked again over this link.
func (c *connection) inquireParts(ctx context.Context, o *Observation) error {
	for {
		wanted := c.wanted()
		a := c.link.ask(ctx, c.link.question(wanted, c.config.Timeout))
		if a.err == nil {
			return c.understand(o, wanted, a)
		}
		e, _ := errors.AsType[*pgconn.PgError](a.err)
		if !isError(a.err) || a.done >= len(wanted) || wanted[a.done] <= role || !isInability(e.Code) {
			return a.err
		}
		c.link.without[wanted[a.done]] = true
	}
}

// isInability tells from the SQLSTATE of an ERROR whether the same question would meet the same answer again.
func isInability(code string) bool {
	const queryCanceled = "57014"
	return code != queryCanceled && code[:min(2, len(code))] != "53" // insufficient resources
}

// wanted are the parts to ask now.
func (c *connection) wanted() []part {
	l := c.link
	wanted := make([]part, 0, parts)
	for p := range parts {
		ask := !l.without[p]
		switch p {
		case identity, abilities:
			ask = ask && !l.known
		case census:
			ask = ask && (!l.known || time.Since(c.counted.At) >= c.config.Census)
		case topology:
			ask = ask && (l.server.aurora || l.server.rds)
		case guard, role, positions, parts:
		}
		if ask {
			wanted = append(wanted, p)
		}
	}
	return wanted
}

func (c *connection) understand(o *Observation, wanted []part, a answer) error {
	if len(a.results) != len(wanted) {
		return errors.New("the server answered with another number of results than it was asked for")
	}
	for i, p := range wanted {
		if err := c.link.understand(o, p, a.results[i]); err != nil {
			return err
		}
	}
	return nil
}

// historyOf returns the history of an observation's timeline, which is read once.
func (c *connection) historyOf(ctx context.Context, o *Observation) []TimelineSwitch {
	if o.Timeline <= 1 {
		return nil
	}
	same := c.past.timeline == o.Timeline && c.past.systemID == o.SystemID
	if same && (c.past.switches != nil || time.Since(c.past.at) < c.config.Census) {
		return c.past.switches
	}
	c.past = past{
		at: time.Now(), systemID: o.SystemID, timeline: o.Timeline,
		switches: c.history(ctx, o.Timeline),
	}
	return c.past.switches
}

// remember fills in what was not asked this time, and keeps what later observations need.
func (c *connection) remember(o *Observation) {
	if o.MaxConnections == 0 {
		o.Connections, o.MaxConnections = c.counted.Connections, c.counted.MaxConnections
		o.Reserved, o.HorizonAge = c.counted.Reserved, c.counted.HorizonAge
	} else {
		c.counted = *o
	}
	c.judgeLag(o)
}

// judgeLag corrects the lag that the server told, the time since the last commit that it has replayed: if the primary had
// nothing to do before, that is much too long, since what is not replayed has come after the standby was last seen without arrears.
func (c *connection) judgeLag(o *Observation) {
	if !o.Standby || o.SystemID != c.caughtUp.SystemID {
		c.caughtUp = Observation{}
	}
	if !o.Standby {
		return
	}
	if o.Received <= o.LSN || c.caughtUp.At.IsZero() && o.Lag == 0 {
		c.caughtUp = *o
		return
	}
	if c.caughtUp.At.IsZero() {
		return
	}
	longest := o.At.Sub(c.caughtUp.At)
	if o.Lag == 0 || o.Lag > longest {
		o.Lag = longest
	}
}
