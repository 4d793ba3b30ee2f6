// Package server is one connection to PostgreSQL: dialling it, what it owes (Replies), what it holds (prepared statements,
// settings, parameters), and cancelling its query.
//
// It does not decide which session uses the connection or what is written to it: package session does. The invariant: a
// request is in Replies before its first byte is written.
package server
