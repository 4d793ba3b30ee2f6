package verify

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"pgsidecar/internal/admin"
)

// Proxy is one proxy that can be asked for its status.
type Proxy interface {
	Address() string // Of its HTTP: host:port or the path of a unix socket.
	Status(ctx context.Context) (admin.Status, error)
}

// Config says which proxies are checked, and against what.
type Config struct {
	Proxies []Proxy
	Login   string // Connection string of a client; its host and port are not used, each proxy tells its own.
	Server  string // Connection string past the proxies, for what the client's user may not see; "" asks through a proxy.
	Want    Want
	Base    *Baseline // What Proxies returned before; nil compares with nothing.

	// Measure waits for Window and counts errors and times in it. Without it neither is checked.
	Measure bool
	Window  time.Duration
	Wait    time.Duration // How long a transaction may take, and a standby to catch up.
	Age     time.Duration // From when on a transaction that stands still is left over.
	// Tolerance is how much worse than before errors and times may be: 0.5 is half as much again.
	Tolerance float64
}

// Want is what has to be found. The zero value of each field wants no particular one: proxies then have to agree.
type Want struct {
	Version, ConfigHash string
	System              string
	Timeline            int64
	Standbys            int // At least.
}

// seen is a proxy that has answered.
type seen struct {
	proxy  Proxy
	status admin.Status
}

// Proxies checks proxies and the server behind them, adds what it finds to the report, and returns what to compare with later.
func Proxies(ctx context.Context, cfg Config, report *Report) Baseline {
	began := time.Now()
	answered := report.answers(ctx, cfg.Proxies)
	report.same(CheckVersion, answered, cfg.Want.Version, func(s *admin.Status) string { return s.Version },
		"wait until the rollout is through, or name the ones to check; --want-version says which one it has to be")
	report.same(CheckConfig, answered, cfg.Want.ConfigHash, func(s *admin.Status) string { return s.Config },
		"reload or restart those that differ; `pgsidecar check` prints a configuration with its hash")
	report.leaks(answered)
	if report.wants(CheckServers) {
		report.servers(ctx, answered, cfg.Wait)
	}

	base := Baseline{Format: baselineFormat, Saved: began.UTC().Truncate(time.Second)}
	identities, conn := report.transactions(ctx, cfg, answered)
	identities = append(identities, watched(answered, identities)...)
	if who, ok := direct(ctx, cfg); ok {
		identities = append(identities, who)
	}
	report.identity(cfg, identities, &base)
	report.server(ctx, cfg, answered, conn, &base)
	if cfg.Measure && len(answered) > 0 {
		report.traffic(ctx, cfg, answered, time.Until(began.Add(cfg.Window)), &base)
	}
	return base
}

// answers asks all proxies at once and returns those that have answered, in their order.
func (r *Report) answers(ctx context.Context, proxies []Proxy) []seen {
	all, errs := readAll(ctx, proxies)
	answered := make([]seen, 0, len(all))
	for i, s := range all {
		address := s.proxy.Address()
		switch {
		case errs[i] != nil:
			r.fail(CheckProxy, address, "see whether it runs, and its log", "%v", errs[i])
			continue
		case s.status.NotReady != "":
			r.fail(CheckProxy, address, "a proxy that ends is replaced: wait for its end and name its successor", "new clients are not welcome: %s", s.status.NotReady)
		default:
			r.pass(CheckProxy, address, "%s, up for %s", s.status.Phase, seconds(s.status.Uptime).Round(time.Second))
		}
		answered = append(answered, s)
	}
	return answered
}

// readAll reads the status of all proxies; the error of each is at its index.
func readAll(ctx context.Context, proxies []Proxy) ([]seen, []error) {
	all, errs := make([]seen, len(proxies)), make([]error, len(proxies))
	var wg sync.WaitGroup
	for i, p := range proxies {
		wg.Go(func() {
			status, err := p.Status(ctx)
			all[i], errs[i] = seen{p, status}, err
		})
	}
	wg.Wait()
	return all, errs
}

// same checks that all have what is wanted, or what most of them have.
func (r *Report) same(c Check, all []seen, want string, of func(*admin.Status) string, cure string) {
	if want == "" {
		want = most(all, of)
	}
	for i := range all {
		switch have := of(&all[i].status); {
		case have == "":
			r.unknown(c, all[i].proxy.Address(), "it is of a version that does not tell: ask its container", "not told")
		case have != want:
			r.fail(c, all[i].proxy.Address(), cure, "%s instead of %s", have, want)
		default:
			r.pass(c, all[i].proxy.Address(), "%s", have)
		}
	}
}

// most returns what most have, of several the first one.
func most(all []seen, of func(*admin.Status) string) string {
	counts, best := map[string]int{}, ""
	for i := range all {
		counts[of(&all[i].status)]++
	}
	for i := range all {
		if have := of(&all[i].status); counts[have] > counts[best] {
			best = have
		}
	}
	return best
}

func (r *Report) leaks(all []seen) {
	for i := range all {
		address, n := all[i].proxy.Address(), all[i].status.Leaks
		if n > 0 {
			r.fail(CheckLeaks, address, "look for \"state leak\" in its log and report it; pool.mode: session keeps clients apart until it is understood",
				"%d servers had a client's state after their release", n)
			continue
		}
		r.pass(CheckLeaks, address, "none")
	}
}

// transactions runs one through each proxy. It returns who answered at the other end, and how to ask there again.
func (r *Report) transactions(ctx context.Context, cfg Config, all []seen) ([]identity, *pgx.ConnConfig) {
	var identities []identity
	var through *pgx.ConnConfig
	for i := range all {
		address := all[i].proxy.Address()
		login, err := aim(cfg.Login, address, all[i].status.Listen)
		if err != nil {
			r.unknown(CheckTransaction, address, "run verify where its clients and its configuration are (kubectl exec POD -c pgsidecar -- /pgsidecar verify), "+
				"or say with --client as whom to log in", "%v", err)
			continue
		}
		who, took, err := transact(ctx, login, cfg.Wait)
		if err != nil {
			r.fail(CheckTransaction, address, "see the proxy's log; --client says as whom to log in, and has to lead to a primary", "%v", err)
			continue
		}
		r.pass(CheckTransaction, address, "committed on %s in %s", who.where(), took.Round(100*time.Microsecond))
		who.subject = address
		identities = append(identities, who)
		if through == nil {
			through = login
		}
	}
	return identities, through
}

// identity checks that all proxies lead to the same server, which is the right one.
func (r *Report) identity(cfg Config, all []identity, base *Baseline) {
	want, cure := cfg.Want, "the proxies lead to different servers: compare upstream.url"
	if b := cfg.Base; b != nil {
		if want.System == "" {
			want.System = b.System
		}
		if want.Timeline == 0 {
			want.Timeline = b.Timeline
		}
	}
	if len(all) > 0 {
		base.System, base.Timeline = all[0].System, all[0].Timeline
	}
	if want.System == "" {
		want.System = base.System
	}
	if want.Timeline == 0 {
		want.Timeline = base.Timeline
	}
	for _, who := range all {
		if who.System != want.System {
			r.fail(CheckSystem, who.subject, cure+"; this is another cluster", "system identifier %s instead of %s", who.System, want.System)
			continue // Its timeline says nothing.
		}
		r.pass(CheckSystem, who.subject, "system identifier %s", who.System)
		if who.Timeline != want.Timeline {
			r.fail(CheckTimeline, who.subject, timelineCure(who.Timeline, want.Timeline), "timeline %d instead of %d", who.Timeline, want.Timeline)
			continue
		}
		r.pass(CheckTimeline, who.subject, "%d", who.Timeline)
	}
}

func timelineCure(have, want int64) string {
	if have < want {
		return "this is the primary of before a failover: take it out of service at once, what it acknowledges will be lost"
	}
	return "a server has been promoted meanwhile; if that was meant, pass --want-timeline or save a new base line"
}

// databases returns the databases that the proxies serve, and users their users there.
func databases(all []seen) (names []string) {
	return distinct(all, func(p *admin.Pool) string { return p.Database })
}

func users(all []seen) []string {
	return distinct(all, func(p *admin.Pool) string { return p.User })
}

func distinct(all []seen, of func(*admin.Pool) string) []string {
	names := []string{}
	for i := range all {
		for j := range all[i].status.Pools {
			names = append(names, of(&all[i].status.Pools[j]))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// oneLine makes an error fit into a line.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }
