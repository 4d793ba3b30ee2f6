package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pgsidecar/internal/admin"
)

func healthCommand() command {
	return command{
		name: "health", summary: "Ask a running proxy whether it is ready; for images without a shell.",
		usage: `
Ends with exit code 0 if the proxy on this machine answers that it is ready for new clients, else with 1. It does not
ask the database, whose troubles are not cured by restarting the proxy.

Examples:
  pgsidecar health
  pgsidecar health --live
  HEALTHCHECK CMD ["/pgsidecar", "health"]`,
		flags: func(flags *flag.FlagSet) func(context.Context, invocation) error {
			connect := clientFlags(flags)
			live := flags.Bool("live", false, "ask only whether it is alive, which it is to its end")
			return func(ctx context.Context, in invocation) error {
				path := "/readyz"
				if *live {
					path = "/livez"
				}
				return health(ctx, in, connect, path)
			}
		},
	}
}

func health(ctx context.Context, in invocation, connect func(invocation) (*client, error), path string) error {
	c, err := connect(in)
	if err != nil {
		return err
	}
	code, body, err := c.ask(ctx, http.MethodGet, path)
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return refused(code, body)
	}
	fmt.Fprintln(in.stdout, strings.TrimSpace(string(body)))
	return nil
}

func drainCommand() command {
	return command{
		name: "drain", summary: "Tell a running proxy to end, as SIGTERM does; or to leave one server alone.",
		usage: `
Begins the end of the proxy on this machine and returns at once: new clients are refused, transactions end within
drain.timeout, then the proxy ends with exit code 0. It has to be asked on loopback or on a unix socket. It does not
linger, as a classic sidecar does after SIGTERM: whoever asks knows that nobody needs the proxy any more.

Examples, for a job whose proxy has to end when its work is done:
  ./job; pgsidecar drain
  ./job; pgsidecar drain --wait

With --target it takes one server out of service instead, whose name pgsidecar status tells: transactions there end, its
connections are closed, and no new ones are made, until --restore. Without another primary, those who begin a transaction that
needs one wait, for failover.hold at most; a standby that is promoted meanwhile takes over.

  pgsidecar drain --target pg1:5432
  pgsidecar drain --target pg1:5432 --restore`,
		flags: func(flags *flag.FlagSet) func(context.Context, invocation) error {
			connect := clientFlags(flags)
			wait := flags.Bool("wait", false, "return when the proxy has ended")
			target := flags.String("target", "", "take the server of this `NAME` out of service, and let the proxy live")
			restore := flags.Bool("restore", false, "with --target: put it into service again")
			return func(ctx context.Context, in invocation) error {
				switch {
				case *target != "" && *wait:
					return &usageError{"--wait is for the end of the proxy: leave it or --target out"}
				case *target != "":
					return askTarget(ctx, in, connect, *target, *restore)
				case *restore:
					return &usageError{"--restore is for --target"}
				}
				return askDrain(ctx, in, connect, *wait)
			}
		},
	}
}

func askDrain(ctx context.Context, in invocation, connect func(invocation) (*client, error), wait bool) error {
	c, err := connect(in)
	if err != nil {
		return err
	}
	code, body, err := c.ask(ctx, http.MethodPost, "/drain")
	if err != nil {
		return err
	}
	if code != http.StatusAccepted {
		return refused(code, body)
	}
	fmt.Fprintln(in.stdout, "draining")
	if !wait {
		return nil
	}
	if err := awaitEnd(ctx, c); err != nil {
		return err
	}
	fmt.Fprintln(in.stdout, "ended")
	return nil
}

// endEvery is how often it is asked whether the proxy is still there.
const endEvery = 100 * time.Millisecond

// awaitEnd returns when nobody listens any more. The proxy's own deadline bounds that.
func awaitEnd(ctx context.Context, c *client) error {
	tick := time.NewTicker(endEvery)
	defer tick.Stop()
	for {
		_, _, err := c.ask(ctx, http.MethodGet, "/livez")
		switch {
		case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist): // Of TCP, and of a unix socket.
			return nil
		case err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF): // Those come just before the end.
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func statusCommand() command {
	return command{
		name: "status", summary: "Show what a running proxy does.",
		usage: `
Shows phase, clients, connections to PostgreSQL and pools of the proxy on this machine; which clients keep their
connection between transactions, why and since when; and which statements have made clients do that.

Examples:
  pgsidecar status
  pgsidecar status --json --http 127.0.0.1:6433`,
		flags: func(flags *flag.FlagSet) func(context.Context, invocation) error {
			connect := clientFlags(flags)
			asJSON := flags.Bool("json", false, "print the status as JSON")
			return func(ctx context.Context, in invocation) error { return status(ctx, in, connect, *asJSON) }
		},
	}
}

func status(ctx context.Context, in invocation, connect func(invocation) (*client, error), asJSON bool) error {
	c, err := connect(in)
	if err != nil {
		return err
	}
	if asJSON {
		body, err := c.readStatus(ctx)
		if err != nil {
			return err
		}
		if _, err := in.stdout.Write(body); err != nil {
			return fmt.Errorf("print status: %w", err)
		}
		return nil
	}
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	printStatus(in.stdout, &s)
	return nil
}

// readStatus asks for the status and returns it as JSON.
func (c *client) readStatus(ctx context.Context) ([]byte, error) {
	code, body, err := c.ask(ctx, http.MethodGet, "/status")
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, refused(code, body)
	}
	return body, nil
}

// Status implements verify.Proxy.
func (c *client) Status(ctx context.Context) (admin.Status, error) {
	var s admin.Status
	body, err := c.readStatus(ctx)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("read status of the proxy on %s: %w; is something else listening there?", c.address, err)
	}
	return s, nil
}

// Address implements verify.Proxy.
func (c *client) Address() string { return c.address }

// printStatus shows a status to people.
func printStatus(w io.Writer, s *admin.Status) {
	up := time.Duration(s.Uptime * float64(time.Second)).Round(time.Second)
	fmt.Fprintf(w, "pgsidecar %s: %s, up for %s, %d transactions\n", s.Version, s.Phase, up, s.Transactions)
	if s.NotReady != "" {
		fmt.Fprintf(w, "new clients are not welcome: %s\n", s.NotReady)
	}
	fmt.Fprintf(w, "clients: %d idle, %d active, %d waiting\n", s.Clients.Idle, s.Clients.Active, s.Clients.Waiting)
	fmt.Fprintf(w, "servers: %d idle, %d active, %d dialing, %d closing, at most %d\n",
		s.Servers.Idle, s.Servers.Active, s.Servers.Dialing, s.Servers.Closing, s.Servers.Limit)
	if s.ClientsPerBusyServer > 0 {
		fmt.Fprintf(w, "multiplexing: %.1f clients for each busy server\n", s.ClientsPerBusyServer)
	}
	if s.Held != "" {
		fmt.Fprintf(w, "transactions are held: %s\n", printable(s.Held))
	}
	printTopology(w, s.Topology)
	if len(s.Pools) > 0 {
		fmt.Fprintln(w)
		printTable(w, poolRows(s.Pools))
	}
	if len(s.PinnedClients) > 0 {
		fmt.Fprint(w, "\nclients that keep their server between transactions:\n")
		printTable(w, pinnedRows(s.PinnedClients))
	}
	if len(s.PinningStatements) > 0 {
		fmt.Fprint(w, "\nstatements that make clients do so:\n")
		printTable(w, pinningRows(s.PinningStatements))
	}
}

// pinnedRows returns the table of pinned clients, its head first.
func pinnedRows(clients []admin.PinnedClient) [][]string {
	rows := make([][]string, 0, 1+len(clients))
	rows = append(rows, []string{"CLIENT", "APPLICATION", "DATABASE", "USER", "FOR", "REASON", "STATEMENT"})
	for _, c := range clients {
		rows = append(rows, []string{
			printable(c.Client), printable(c.Application), printable(c.Database), printable(c.User),
			time.Duration(c.Seconds * float64(time.Second)).Round(time.Second).String(), printable(c.Reason), printable(c.Statement),
		})
	}
	return rows
}

// pinningRows returns the table of statements that have pinned clients, its head first.
func pinningRows(statements []admin.PinningStatement) [][]string {
	rows := make([][]string, 0, 1+len(statements))
	rows = append(rows, []string{"VERDICT", "DATABASE", "USER", "TIMES", "LAST", "REASON", "STATEMENT"})
	for _, p := range statements {
		rows = append(rows, []string{
			p.Verdict, printable(p.Database), printable(p.User), strconv.FormatUint(p.Count, 10), p.Last.Local().Format(time.DateTime),
			printable(p.Reason), printable(p.Statement),
		})
	}
	return rows
}

// poolRows returns the table of pools, its head first.
func poolRows(pools []admin.Pool) [][]string {
	rows := make([][]string, 0, 1+len(pools))
	rows = append(rows, []string{"DATABASE", "USER", "IDLE", "ACTIVE", "DIALING", "CLOSING", "WAITING", "OLDEST WAIT", "TRANSACTIONS"})
	for _, p := range pools {
		rows = append(rows, []string{
			printable(p.Database), printable(p.User),
			strconv.Itoa(p.Servers.Idle), strconv.Itoa(p.Servers.Active), strconv.Itoa(p.Servers.Dialing), strconv.Itoa(p.Servers.Closing),
			strconv.Itoa(p.Waiting), fmt.Sprintf("%.3f s", p.OldestWait), strconv.FormatUint(p.Transactions, 10),
		})
	}
	return rows
}

// printable keeps a name that a client has chosen from steering the terminal.
func printable(name string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return '?'
		}
		return c
	}, name)
}
