// Package statement keeps prepared statements apart from the connections they were prepared on: a Table of shared
// statements for each loop, the Names under which a client knows them, and the statements Held by a server.
//
// It does not speak the protocol. The invariant: equal definitions (query text and parameter types) under equal readings (see
// package state) of one table are one Statement, and a Statement's name on servers is unique in the process, so a name never
// means another query.
package statement

import (
	"strconv"
	"strings"
	"sync/atomic"

	"pgsidecar/proxy/state"
)

// Prefix begins the names of all statements that the proxy prepares. A client's own name never reaches a server with it.
const Prefix = "pgsidecar_"

// Statement is one definition of a prepared statement. Everything but the staleness is immutable, so it may be read by
// every loop.
type Statement struct {
	Name       string // on servers
	Definition string // query text, its terminator, parameter types: the tail of a Parse message; "" if it was too large to keep
	Reading    string // the settings under which it was prepared, as far as its meaning depends on them
	Effects    state.Effect
	Rereads    bool // executing it may change the reading of others

	// stale counts how often a server refused to go on with a plan of it ("cached plan must not change result type").
	// What was prepared before the latest refusal is prepared anew.
	stale atomic.Uint32

	// unseen is what was last said about it. One statement may be asked about by two databases in turn, which costs a look
	// at its text each time.
	unseen atomic.Pointer[judgement]
}

// judgement is what a statement does behind what its text shows.
type judgement struct {
	hidden  *state.Hidden
	effects state.Effect
}

// Unseen returns what the statement may do, besides its Effects, in a database that hides this.
func (s *Statement) Unseen(hidden *state.Hidden) state.Effect {
	last := s.unseen.Load()
	if last == nil || last.hidden != hidden {
		last = &judgement{hidden, hidden.Effects([]byte(s.Query()), s.Effects)}
		s.unseen.Store(last)
	}
	return last.effects
}

// Query returns the statement's text.
func (s *Statement) Query() string {
	query, _, _ := strings.Cut(s.Definition, "\x00")
	return query
}

// Kept tells whether the definition is known, so that the statement can be prepared on any server.
func (s *Statement) Kept() bool { return s.Definition != "" }

// Spoil makes every server prepare the statement anew before its next use.
func (s *Statement) Spoil() { s.stale.Add(1) }

// serial numbers statement names, unique in the process over all tables.
type serial struct{ last atomic.Uint64 }

func (n *serial) name() string { return Prefix + strconv.FormatUint(n.last.Add(1), 36) }

// Numbers hands out the names of statements. One is shared by all tables of a process.
type Numbers struct{ serial serial }
