// Package cancel gives out the keys with which clients may cancel their queries, and finds whose key it is.
//
// It does not cancel anything: the session that owns the key does, on its own loop. The invariant: keys are the proxy's
// own and random; a server's key never leaves the proxy.
package cancel

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
)

// Target is who can be cancelled.
type Target interface {
	// CancelRequested may be called from any goroutine and must not block. done is called once, from any goroutine, when
	// the request has had its effect or can have none any more; it must not block either.
	CancelRequested(done func())
}

// Key is a key that was given out. The zero value is none.
type Key struct {
	short uint64 // process id and 4-byte secret (protocol 3.0)
	long  string // process id and 32-byte secret (protocol 3.2)
}

const (
	shortSecret = 4
	longSecret  = 32
)

// PID returns the process id in the key.
func (k Key) PID() uint32 {
	if k.long != "" {
		return binary.BigEndian.Uint32([]byte(k.long[:4]))
	}
	return uint32(k.short >> 32)
}

// Secret returns the secret in the key, as it stands in BackendKeyData and in cancel requests.
func (k Key) Secret() []byte {
	if k.long != "" {
		return []byte(k.long[4:])
	}
	return binary.BigEndian.AppendUint32(nil, uint32(k.short))
}

// Registry holds the keys of all clients. Its methods may be called from any goroutine; they are used at login, at the
// end of a client, and for cancel requests. Use NewRegistry.
type Registry struct {
	mu struct { // held for a map access
		sync.Mutex
		short map[uint64]Target
		long  map[string]Target
	}
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	r := new(Registry)
	r.mu.short = make(map[uint64]Target)
	r.mu.long = make(map[string]Target)
	return r
}

// Add gives out a key for t. pid is the process id to show, 0 for a random one; long asks for a 32-byte secret, which
// only clients of protocol 3.2 understand.
func (r *Registry) Add(t Target, pid uint32, long bool) (Key, error) {
	for {
		key, err := random(pid, long)
		if err != nil {
			return Key{}, err
		}
		if r.add(key, t) {
			return key, nil
		}
	}
}

func (r *Registry) add(key Key, t Target) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if key.long != "" {
		if _, taken := r.mu.long[key.long]; taken {
			return false
		}
		r.mu.long[key.long] = t
		return true
	}
	if _, taken := r.mu.short[key.short]; taken {
		return false
	}
	r.mu.short[key.short] = t
	return true
}

// Remove takes a key back. Removing the zero key does nothing.
func (r *Registry) Remove(key Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if key.long != "" {
		delete(r.mu.long, key.long)
	} else {
		delete(r.mu.short, key.short)
	}
}

// Find returns whose key it is, or nil.
func (r *Registry) Find(pid uint32, secret []byte) Target {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(secret) == shortSecret {
		return r.mu.short[uint64(pid)<<32|uint64(binary.BigEndian.Uint32(secret))]
	}
	return r.mu.long[string(binary.BigEndian.AppendUint32(nil, pid))+string(secret)]
}

// Len returns how many keys are out.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.mu.short) + len(r.mu.long)
}

func random(pid uint32, long bool) (Key, error) {
	var b [4 + longSecret]byte
	if _, err := rand.Read(b[:]); err != nil {
		return Key{}, fmt.Errorf("make cancel key: %w", err)
	}
	b[0] &= 0x7f // clients read the process id as a signed number
	if pid != 0 {
		binary.BigEndian.PutUint32(b[:], pid)
	}
	if binary.BigEndian.Uint32(b[:]) == 0 {
		b[3] = 1
	}
	if long {
		return Key{long: string(b[:])}, nil
	}
	return Key{short: binary.BigEndian.Uint64(b[:])}, nil
}
