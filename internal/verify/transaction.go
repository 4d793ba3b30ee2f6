package verify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"pgsidecar/internal/config"
)

// aim returns how a client logs in at the proxy that serves HTTP on the address and clients on listen. login may be a URL or
// keywords and values; what it says about host and port gives way.
func aim(login, address string, listen []string) (*pgx.ConnConfig, error) {
	if login == "" {
		return nil, errors.New("nothing says as whom to log in")
	}
	host, port, err := reachable(address, listen)
	if err != nil {
		return nil, err
	}
	target, err := withHost(login, host, port)
	if err != nil {
		return nil, err
	}
	return parse(target)
}

// parse reads a connection string. Its errors may not quote it, as it may have a password.
func parse(target string) (*pgx.ConnConfig, error) {
	c, err := pgx.ParseConfig(target)
	if err != nil {
		return nil, errors.New("the connection string is not understood")
	}
	c.DefaultQueryExecMode = pgx.QueryExecModeExec // Nothing is worth preparing.
	return c, nil
}

// reachable returns the first address on which clients of this place can reach the proxy.
func reachable(address string, listen []string) (host, port string, err error) {
	for _, l := range listen {
		switch network, _ := config.Socket(l); {
		case network == "unix" && !config.Local(address):
			continue
		case network == "unix":
			name := filepath.Base(l)
			return filepath.Dir(l), strings.TrimPrefix(filepath.Ext(name), "."), nil
		}
		host, port, err := net.SplitHostPort(l)
		if err != nil {
			continue
		}
		switch ip := net.ParseIP(host); {
		case ip.IsUnspecified() && strings.HasPrefix(address, "/"):
			return "127.0.0.1", port, nil
		case ip.IsUnspecified():
			host, _, _ = net.SplitHostPort(address)
			return host, port, nil
		case ip.IsLoopback() && !config.Local(address):
			continue
		}
		return host, port, nil
	}
	return "", "", fmt.Errorf("clients reach it on its own machine only (%s)", strings.Join(listen, ", "))
}

// withHost puts host and port into a connection string, in whichever of the two forms it is.
func withHost(login, host, port string) (string, error) {
	if !strings.HasPrefix(login, "postgres://") && !strings.HasPrefix(login, "postgresql://") {
		return login + " host='" + strings.ReplaceAll(host, "'", `\'`) + "' port=" + port, nil // The last one counts.
	}
	u, err := url.Parse(login)
	if err != nil {
		return "", errors.New("the connection string is not understood")
	}
	query := u.Query()
	query.Set("host", host)
	query.Set("port", port)
	u.Host, u.RawQuery = "", query.Encode()
	return u.String(), nil
}

// transact logs in, runs one transaction that writes, and makes sure that it is committed. A transaction id is all that it
// writes: that needs no table and no privilege, and no standby gives one.
func transact(ctx context.Context, login *pgx.ConnConfig, limit time.Duration) (identity, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	began := time.Now()
	conn, err := pgx.ConnectConfig(ctx, login)
	if err != nil {
		return identity{}, 0, fmt.Errorf("log in: %s", oneLine(err))
	}
	defer closeConn(ctx, conn)
	var written, read, status string
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "select pg_current_xact_id()::text").Scan(&written); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		return tx.QueryRow(ctx, "select pg_current_xact_id_if_assigned()::text").Scan(&read)
	})
	if err != nil {
		return identity{}, 0, fmt.Errorf("run a transaction: %w", err)
	}
	if read != written {
		return identity{}, 0, fmt.Errorf("a transaction began as %s and went on as %s", written, read)
	}
	if err := conn.QueryRow(ctx, "select pg_xact_status($1::text::xid8)", written).Scan(&status); err != nil {
		return identity{}, 0, fmt.Errorf("ask what became of a transaction: %w", err)
	}
	if status != "committed" {
		return identity{}, 0, fmt.Errorf("transaction %s was acknowledged and is %s", written, status)
	}
	took := time.Since(began)
	who, err := identify(ctx, conn)
	return who, took, err
}

// closeGrace is how long a connection may take to be closed.
const closeGrace = time.Second

func closeConn(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeGrace)
	defer cancel()
	_ = conn.Close(ctx) // Whatever there was to know is known.
}
