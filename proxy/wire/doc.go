// Package wire frames the PostgreSQL protocol (version 3) and writes the few messages that the proxy makes itself.
//
// It does not decode what only passes through: a Scanner looks at type bytes and lengths, and each type has a Class that
// says how much more of a message its reader wants to see. It knows nothing of sockets, sessions or SQL.
//
// The invariant: whatever way a stream is cut into chunks, the messages and the bytes that come out are the same.
//
// Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol".
package wire
