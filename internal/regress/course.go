package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// course is everything that one call of the program runs, one after the other.
type course struct {
	options
	tests  tests
	out    io.Writer
	direct map[string]results // by suite and order: what passes without the proxy
}

// errDifferent says that a test fails because of the proxy.
var errDifferent = errors.New("some tests that pass directly fail through the proxy")

func (c *course) run(ctx context.Context, legs []leg) error {
	c.say("PostgreSQL %s; results in %s", c.tests.version, c.dir)
	var failed bool
	for _, l := range legs {
		direct, err := c.directly(ctx, l)
		if err != nil {
			return err
		}
		if c.options.direct {
			continue
		}
		through, err := c.perform(ctx, l.String(), l, true)
		if err != nil {
			return err
		}
		unknown, err := c.compare(l, direct, through)
		if err != nil {
			return err
		}
		failed = failed || unknown
	}
	if failed {
		return errDifferent
	}
	return nil
}

// directly runs what a leg runs without the proxy, once for all legs that differ in their mode only.
func (c *course) directly(ctx context.Context, l leg) (results, error) {
	name := l.suite + ", directly, " + l.order
	if done, ok := c.direct[name]; ok {
		return done, nil
	}
	done, err := c.perform(ctx, name, l, false)
	c.direct[name] = done
	return done, err
}

// perform runs a suite once, on a cluster of its own: what one run has left in catalogues could fail the next.
func (c *course) perform(ctx context.Context, name string, l leg, proxied bool) (results, error) {
	ctx, stop := context.WithTimeout(ctx, c.limit)
	defer stop()
	dir := filepath.Join(c.dir, strings.ReplaceAll(name, ", ", "-"))
	dir = strings.ReplaceAll(dir, " mode", "")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return results{}, fmt.Errorf("make output directory: %w", err)
	}
	e, err := start(ctx, c.options, c.tests, l, dir, proxied)
	if err != nil {
		return results{}, err
	}
	began := time.Now()
	done, err := c.tests.run(ctx, l, e.port, dir, c.only)
	if err == nil && proxied {
		done.leaks, err = e.leaks(ctx)
	}
	if err = errors.Join(err, e.close()); err != nil {
		return results{}, fmt.Errorf("%s: %w", name, err)
	}
	c.say("%s: %d of %d pass (%v)", name, len(done.passed), done.count(), time.Since(began).Round(time.Second))
	return done, nil
}

// compare reports the tests that differ, leaves their diffs in the leg's directory, and tells whether one is not known.
func (c *course) compare(l leg, direct, through results) (unknown bool, err error) {
	differ := make([]string, 0, len(direct.passed))
	for _, test := range direct.passed {
		if !slices.Contains(through.passed, test) {
			differ = append(differ, test)
		}
	}
	for _, test := range differ {
		reason, ok := knownDifference(l, test)
		if !ok {
			reason, unknown = "UNKNOWN", true
		}
		path, err := through.saveDiff(test)
		if err != nil {
			return unknown, err
		}
		c.say("  %-24s %s (%s)", test, reason, path)
	}
	c.say("  the same as directly: %d of %d; state leaks: %s", len(direct.passed)-len(differ), len(direct.passed), through.leaks)
	return unknown || through.leaks != "0", nil
}

func (c *course) say(format string, args ...any) { fmt.Fprintf(c.out, format+"\n", args...) }
