package pool

import (
	"cmp"
	"time"
)

// Config bounds the connections to one target. The zero value of a field means its default. A negative IdleTimeout or
// MaxLifetime turns that rule off; with a negative Hold, waiters fail with the first failure.
type Config struct {
	Loops          int // event loops that connections may live on, numbered from 0; fixed for the target's life. Default 1.
	MaxConnections int // all connections of the target, whatever they are doing. Default 20.
	Reserved       int // of those, how many are not to be used at the moment, as another process has them. Default 0.
	MaxPerDatabase int // the same for one database. Default: no limit.
	MaxPerUser     int // the same for one user. Default: no limit.

	// Databases and Users are limits of single ones, by their names at the server, in place of the two above. Numbers that
	// are not positive are passed over. Whoever passes a map does not change it any more.
	Databases, Users map[string]int

	MinConnections int // kept open for each pool that has once had a connection, as far as there is room. Default 0.

	IdleTimeout time.Duration // an unused connection above MinConnections is closed after this. Default 10 minutes.
	MaxLifetime time.Duration // a connection's age; each one has its own limit between 0.9 and 1.0 of it. Default 1 hour.
	Hold        time.Duration // how long waiters outlast failing dials that nothing but a dial can help. Default 10 seconds.

	DialTimeout  time.Duration // one attempt, login included. Default 15 seconds.
	DialParallel int           // attempts at the same time in one pool. Default 2.
	BackoffMin   time.Duration // ceiling of the random wait after the first failure; doubled by each further one. Default 50 ms.
	BackoffMax   time.Duration // where the doubling ends. Default 5 seconds.

	Now func() int64 // monotonic nanoseconds, any origin, any goroutine; fixed. Default: since NewTarget.
}

// preferOwnLoop is how long the oldest waiter may be passed over for one on the loop that releases. Moving a connection
// costs two epoll_ctl and a wake-up, which is worth less than this.
const preferOwnLoop = 2 * time.Millisecond

// evictAfter is how long a connection has been idle before a pool of the same size or larger may have it closed for its
// own waiters. Without it, an overloaded pool would take the only connection of a small one between any two of its
// transactions, and each of those would cost two logins.
const evictAfter = 100 * time.Millisecond

func (c Config) withDefaults() Config {
	c.Loops = positive(c.Loops, 1)
	c.MaxConnections = positive(c.MaxConnections, 20)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 10*time.Minute)
	c.MaxLifetime = cmp.Or(c.MaxLifetime, time.Hour)
	c.Hold = cmp.Or(c.Hold, 10*time.Second)
	c.DialTimeout = positive(c.DialTimeout, 15*time.Second)
	c.DialParallel = positive(c.DialParallel, 2)
	c.BackoffMin = positive(c.BackoffMin, 50*time.Millisecond)
	c.BackoffMax = positive(c.BackoffMax, 5*time.Second)
	if c.Now == nil {
		origin := time.Now()
		c.Now = func() int64 { return int64(time.Since(origin)) }
	}
	return c
}

// perDatabase is the limit of one database; 0: none.
func (c Config) perDatabase(name string) int { return positive(c.Databases[name], c.MaxPerDatabase) }

// perUser is the limit of one user; 0: none.
func (c Config) perUser(name string) int { return positive(c.Users[name], c.MaxPerUser) }

// all returns the bound of all connections that may be used now, as a bound.max.
func (c Config) all() int {
	if left := c.MaxConnections - max(c.Reserved, 0); left > 0 {
		return left
	}
	return nothing
}

// positive answers value, or the default for what is not a positive number.
func positive[T int | time.Duration](value, otherwise T) T {
	if value > 0 {
		return value
	}
	return otherwise
}
