package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"pgsidecar/internal/admin"
	"pgsidecar/router/switchover"
)

// Switchover implements admin.Switcher.
func (r *routing) Switchover(ctx context.Context, request admin.SwitchoverRequest, tell func(admin.SwitchoverStep)) error {
	how := r.course.Load()
	if how.manner != following {
		return errors.New("there is one server only: name all of them in upstream.hosts or upstream.url")
	}
	plan := switchover.Plan{
		To: request.To, Promote: request.Promote, Finish: request.Finish, CatchUp: request.CatchUp, Wait: request.Wait,
	}
	if how.found.patroni != nil {
		plan.Cluster = how.found.patroni
	}
	out, err := r.switchover.Run(ctx, plan, func(e switchover.Event) {
		tell(admin.SwitchoverStep{Step: string(e.Step), Text: e.Text, Seconds: e.Took.Seconds()})
	})
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%s has taken over from %s: transactions were held for %.3f s", out.To, out.From, out.Held.Seconds())
	if out.Fenced {
		text += fmt.Sprintf("; %s has its writes switched off: make it a standby before it serves anybody again", out.From)
	}
	tell(admin.SwitchoverStep{Step: admin.SwitchoverDone, Text: text, Seconds: out.Held.Seconds()})
	return nil
}

func switchoverCommand() command {
	return command{
		name: "switchover", summary: "Make a standby the primary without an error for any client.",
		usage: `
Holds all transactions that begin, lets those end that have begun, waits until the standby has replayed everything, and has it
promoted; transactions go on when it has been seen to be the primary. Before the promotion every failure, and Ctrl-C, undoes
everything. docs/runbooks.md says what to do about the old primary, and where several proxies lead to one cluster.

Who promotes:
  by default  you do, when you are told to: stop the old primary, promote the new one, within --wait. Clients wait
              for failover.hold at most.
              With discovery.patroni Patroni does, which also makes the old primary a standby.
  --promote   the proxy: it switches the old primary's writes off (ALTER SYSTEM SET default_transaction_read_only)
              and calls pg_promote(), for which its role needs the rights

It ends with exit code 0 if the standby has taken over, else with 1 and a sentence that says how things are.

Examples:
  pgsidecar switchover --to pg2:5432 --promote
  pgsidecar switchover --json --wait 30s`,
		flags: func(flags *flag.FlagSet) func(context.Context, invocation) error {
			connect := clientFlags(flags)
			to := flags.String("to", "", "the `NAME` of the standby in pgsidecar status; else the one that has replayed most")
			promote := flags.Bool("promote", false, "have the proxy promote it")
			finish := flags.Duration("finish", 5*time.Second, "how long transactions that have begun may take to end")
			catchUp := flags.Duration("catch-up", 5*time.Second, "how long the standby may take to replay what is missing")
			wait := flags.Duration("wait", 10*time.Second, "how long the promotion may take")
			asJSON := flags.Bool("json", false, "print each step as a line of JSON")
			return func(ctx context.Context, in invocation) error {
				c, err := connect(in)
				if err != nil {
					return err
				}
				parameters := url.Values{
					"finish": {finish.String()}, "catch_up": {catchUp.String()}, "wait": {wait.String()}, "promote": {strconv.FormatBool(*promote)},
				}
				if *to != "" {
					parameters.Set("to", *to)
				}
				ctx, stop := in.interruptible(ctx)
				defer stop()
				return askSwitchover(ctx, in, c, parameters, *asJSON)
			}
		},
	}
}

// interruptible returns a context that the first signal ends.
func (in invocation) interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(ctx)
	go in.interrupt(ctx, stop)
	return ctx, stop
}

// interrupt is the goroutine of interruptible.
func (in invocation) interrupt(ctx context.Context, stop context.CancelFunc) {
	select {
	case <-in.signals:
		stop()
	case <-ctx.Done():
	}
}

// askSwitchover prints the steps as they come.
func askSwitchover(ctx context.Context, in invocation, c *client, parameters url.Values, asJSON bool) error {
	c.http.Timeout = 0 // The proxy bounds each step.
	response, err := c.do(ctx, http.MethodPost, "/switchover", parameters)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	var last admin.SwitchoverStep
	for lines.Scan() {
		last = admin.SwitchoverStep{}
		if err := json.Unmarshal(lines.Bytes(), &last); err != nil || last.Step == "" {
			return refused(response.StatusCode, lines.Bytes())
		}
		switch {
		case asJSON:
			fmt.Fprintln(in.stdout, lines.Text())
		case last.Step != admin.SwitchoverFailed:
			fmt.Fprintf(in.stdout, "%8.3f s  %s\n", last.Seconds, printable(last.Text))
		}
	}
	switch {
	case last.Step == admin.SwitchoverDone:
		return nil
	case last.Step == admin.SwitchoverFailed:
		return errors.New(strings.TrimSpace(printable(last.Text)))
	case lines.Err() != nil:
		return fmt.Errorf("read answer of the proxy on %s: %w", c.address, reason(lines.Err()))
	}
	return fmt.Errorf("the proxy on %s ended before the switchover did: see pgsidecar status", c.address)
}
