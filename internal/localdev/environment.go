package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"pgsidecar/internal/pgcluster"
)

// The database and its owner that the throwaway server has for the user.
const (
	database = "app"
	role     = "app"
)

// stopTimeout is how long pgsidecar may take to end after SIGTERM. Its own deadline, drain.timeout, is 30 s by default.
const stopTimeout = 40 * time.Second

// environment holds what is running. One goroutine uses it.
type environment struct {
	config
	lock    int // descriptor of the lock on dir
	servers []*pgcluster.Cluster
	process *pgcluster.Process // pgsidecar
}

// newEnvironment takes possession of the directory, and clears what a killed run has left there.
func newEnvironment(cfg config) (*environment, error) {
	dir, err := filepath.Abs(cfg.dir)
	if err != nil {
		return nil, fmt.Errorf("resolve directory: %w", err)
	}
	cfg.dir = dir
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("make directory: %w", err)
	}
	lock, err := unix.Open(dir+".lock", unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open lock file: %w", err)
	}
	if err := unix.Flock(lock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(errors.New("another make run is going on in this directory: stop it first"), unix.Close(lock))
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("clear %s: %w", dir, err)
	}
	return &environment{config: cfg, lock: lock}, nil
}

// run starts everything, tells how to use it, and waits until ctx ends or pgsidecar has ended by itself.
func (e *environment) run(ctx context.Context) error {
	upstream := e.getenv("DATABASE_URL")
	if upstream == "" {
		var err error
		if upstream, err = e.startServers(ctx); err != nil {
			return err
		}
	}
	if err := e.startProxy(upstream); err != nil {
		return err
	}
	if err := e.awaitReady(ctx); err != nil {
		return err
	}
	e.explain(upstream)
	select {
	case <-ctx.Done():
		e.say("stopping")
		return nil
	case <-e.process.Done():
		return errors.New("pgsidecar ended by itself: its log above says why")
	}
}

// startServers starts a primary and a standby, and returns the URL of both for the user's role.
func (e *environment) startServers(ctx context.Context) (string, error) {
	inst, err := findPostgreSQL()
	if err != nil {
		return "", err
	}
	e.say("starting PostgreSQL %s and a streaming standby", inst.Version)
	primary, err := pgcluster.Create(ctx, pgcluster.Config{
		Installation: inst,
		Dir:          filepath.Join(e.dir, "primary"),
		Templates:    filepath.Join(filepath.Dir(e.dir), "templates"),
	})
	if err != nil {
		return "", err
	}
	e.servers = append(e.servers, primary)
	if err := primary.Start(ctx); err != nil {
		return "", err
	}
	for _, sql := range []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s'", role, pgcluster.Password(role)),
		fmt.Sprintf("CREATE DATABASE %s OWNER %s", database, role),
	} {
		if err := primary.Exec(ctx, sql); err != nil {
			return "", err
		}
	}
	standby, err := primary.CreateStandby(ctx, filepath.Join(e.dir, "standby"), nil)
	if err != nil {
		return "", err
	}
	e.servers = append(e.servers, standby)
	if err := standby.Start(ctx); err != nil {
		return "", err
	}
	return strings.Replace(primary.URL(database, role), primary.Addr(), primary.Addr()+","+standby.Addr(), 1), nil
}

// findPostgreSQL prefers what is installed on the machine to what was fetched into .local.
func findPostgreSQL() (pgcluster.Installation, error) {
	if inst, ok := pgcluster.Newest(pgcluster.Installations("")); ok {
		return inst, nil
	}
	if inst, ok := pgcluster.Newest(pgcluster.Installations(".")); ok {
		return inst, nil
	}
	return pgcluster.Installation{}, errors.New("no PostgreSQL server was found: install one (Debian: apt-get install postgresql), or set DATABASE_URL")
}

// startProxy runs pgsidecar with the user's environment.
func (e *environment) startProxy(upstream string) error {
	cmd := exec.Command(e.proxy) //nolint:noctx // It is ended by a signal, and not at once.
	cmd.Env = append(slices.Clone(e.environ), "DATABASE_URL="+upstream)
	cmd.Stdout, cmd.Stderr = e.out, os.Stderr
	process, err := pgcluster.Spawn(cmd, syscall.SIGKILL)
	if err != nil {
		return err
	}
	e.process = process
	return nil
}

// close ends everything in the order in which clients would want it: the proxy at transaction boundaries, then the servers.
func (e *environment) close() {
	if e.process != nil {
		e.stopProxy()
	}
	for _, server := range slices.Backward(e.servers) {
		e.report(server.Close())
	}
	e.report(os.RemoveAll(e.dir))
	e.report(unix.Close(e.lock))
}

// stopProxy asks pgsidecar to end, and kills it if it does not, or when the user is in a hurry.
func (e *environment) stopProxy() {
	hurry, stop := hurried()
	defer stop()
	e.report(e.process.Signal(syscall.SIGTERM))
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-e.process.Done():
		return
	case <-hurry:
	case <-timer.C:
		e.say("pgsidecar did not end within %v", stopTimeout)
	}
	e.report(e.process.Signal(syscall.SIGKILL))
	<-e.process.Done()
}

func (e *environment) report(err error) {
	if err != nil {
		e.say("%v", err)
	}
}

func (e *environment) say(format string, args ...any) {
	fmt.Fprintf(e.out, format+"\n", args...)
}

// getenv is the last value of a variable, as for a process with that environment.
func (e *environment) getenv(name string) string {
	for _, entry := range slices.Backward(e.environ) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}
