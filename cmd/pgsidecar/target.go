package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"pgsidecar/router"
)

// DrainTarget implements admin.Targets.
func (r *routing) DrainTarget(ctx context.Context, name string) error {
	if err := r.router.Drain(name); err != nil {
		return err
	}
	t, err := r.router.Await(ctx, func(t *router.Topology) bool {
		i := slices.IndexFunc(t.Targets, func(one router.Target) bool { return one.Name == name })
		return i < 0 || t.Targets[i].Drained
	})
	if err != nil {
		return fmt.Errorf("drain %s: %w", name, err)
	}
	if t.Accepted() == nil { // Else the connections are elsewhere.
		r.Recycle(t.Why)
	}
	return nil
}

// RestoreTarget implements admin.Targets.
func (r *routing) RestoreTarget(_ context.Context, name string) error { return r.router.Restore(name) }

// askTarget takes a server out of service, or puts it into service again.
func askTarget(ctx context.Context, in invocation, connect func(invocation) (*client, error), name string, restore bool) error {
	c, err := connect(in)
	if err != nil {
		return err
	}
	what, done := "drain", "out of service"
	if restore {
		what, done = "restore", "in service"
	}
	code, body, err := c.ask(ctx, http.MethodPost, "/targets/"+url.PathEscape(name)+"/"+what)
	if err != nil {
		return err
	}
	if code != http.StatusOK {
		return refused(code, body)
	}
	fmt.Fprintf(in.stdout, "%s is %s\n", printable(name), done)
	return nil
}
