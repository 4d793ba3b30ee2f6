package proxy

import (
	"sync"
	"time"
)

// place is under which limits a client falls: the database that it asked for and the user that it logged in as.
type place struct{ database, user string }

// limits bound the clients of a place; 0 means no limit.
type limits struct{ all, database, user int }

func (c *Config) limits(at place) limits {
	l := limits{all: c.MaxClients, database: c.MaxClientsPerDatabase, user: c.MaxClientsPerUser}
	if n := c.Databases[at.database].MaxClients; n > 0 {
		l.database = n
	}
	if n := c.Users[at.user].MaxClients; n > 0 {
		l.user = n
	}
	return l
}

// census counts the clients. When it has been closed and the last client has left, ended is closed.
type census struct {
	ended chan struct{}

	mu struct { // held for map accesses
		sync.Mutex
		all      int
		database map[string]int
		user     map[string]int
		emptied  time.Time // when the last client left; at first, when there was none yet
		closed   bool
	}
}

func (c *census) init() {
	c.ended = make(chan struct{})
	c.mu.database = make(map[string]int)
	c.mu.user = make(map[string]int)
	c.mu.emptied = time.Now()
}

// count returns how many clients there are.
func (c *census) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.all
}

// emptied returns when the last client left, or the zero time while there is one.
func (c *census) emptied() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.all > 0 {
		return time.Time{}
	}
	return c.mu.emptied
}

// enter counts a client in, or names the limit that it would exceed.
func (c *census) enter(at place, l limits) (exceeded string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.mu.closed:
		return "the end of the proxy"
	case l.all > 0 && c.mu.all >= l.all:
		return "client.max_clients"
	case l.database > 0 && c.mu.database[at.database] >= l.database:
		return "the limit of clients of database \"" + at.database + "\""
	case l.user > 0 && c.mu.user[at.user] >= l.user:
		return "the limit of clients of user \"" + at.user + "\""
	}
	c.mu.all++
	c.mu.database[at.database]++
	c.mu.user[at.user]++
	return ""
}

// leave counts a client out.
func (c *census) leave(at place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.all--
	decrement(c.mu.database, at.database)
	decrement(c.mu.user, at.user)
	c.mu.emptied = time.Now()
	c.signal()
}

// close lets no more clients in.
func (c *census) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.mu.closed {
		c.mu.closed = true
		c.signal()
	}
}

func (c *census) signal() {
	if c.mu.closed && c.mu.all == 0 {
		select {
		case <-c.ended:
		default:
			close(c.ended)
		}
	}
}

func decrement(counts map[string]int, key string) {
	if counts[key]--; counts[key] <= 0 {
		delete(counts, key)
	}
}
