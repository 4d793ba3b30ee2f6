// Package state knows what a client does to its session: which statements change it, what its settings are, and how a
// server connection is found out to hold something of it. It looks at texts and rows; it has no connection, and it
// decides nothing about who is pinned or released.
//
// The invariant: a text that is not understood is reported as such (Unknown), never as harmless.
package state
