package state

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"weak"
)

// Setting is one session setting (a GUC) and its value, as set_config takes it: a list setting such as search_path
// holds the whole list, with the quotes of its elements. The bytes of Value are in the session's client_encoding.
type Setting struct {
	Name, Value string
}

// Settings is an immutable set of session settings in canonical order. Sets made by one Interner are equal exactly when
// their pointers are. The set without any setting is nil, and every method takes it.
type Settings struct {
	list []Setting
	key  string // the list as one string, the Interner's key

	reading string // see Reading
}

// List returns the settings in the order in which they have to be applied. The caller must not change it.
func (s *Settings) List() []Setting {
	if s == nil {
		return nil
	}
	return s.list
}

// Get returns the value of a setting, under whatever spelling of its name PostgreSQL accepts.
func (s *Settings) Get(name string) (value string, ok bool) {
	return s.find(canonicalName(name))
}

// find is Get for a name that is canonical already.
func (s *Settings) find(name string) (value string, ok bool) {
	for _, one := range s.List() {
		if one.Name == name {
			return one.Value, true
		}
	}
	return "", false
}

// Interner makes equal sets of settings one pointer, so that "does this server already have my settings" is a
// comparison of pointers. There is one for the whole proxy, because server connections move between loops; it may be
// used by any number of goroutines. It is asked at a login and when a setting changes, never per message.
//
// It holds its sets weakly: a client that puts a different value into app.user_id with every request leaves nothing
// behind once neither a session nor a server refers to the set.
type Interner struct {
	// Nothing blocks while mu is held.
	mu struct {
		sync.Mutex
		sets map[string]weak.Pointer[Settings]
	}
}

// NewInterner returns an Interner that has no sets yet.
func NewInterner() *Interner {
	in := &Interner{}
	in.mu.sets = make(map[string]weak.Pointer[Settings])
	return in
}

// Intern returns the one set that holds these settings. Where a name is given twice the later value counts, as in a
// startup packet. Names are case-insensitive. The list is neither changed nor kept.
func (in *Interner) Intern(list []Setting) *Settings {
	list = canonical(list)
	if len(list) == 0 {
		return nil
	}
	key := joined(list)

	in.mu.Lock()
	defer in.mu.Unlock()
	if s := in.mu.sets[key].Value(); s != nil {
		return s
	}
	s := &Settings{list: list, key: key, reading: readingOf(list)}
	in.mu.sets[key] = weak.Make(s)
	runtime.AddCleanup(s, in.forget, key)
	return s
}

// With returns the set that is s with one setting changed or added.
func (in *Interner) With(s *Settings, name, value string) *Settings {
	return in.Intern(append(slices.Clone(s.List()), Setting{Name: name, Value: value}))
}

// Without returns the set that is s without one setting.
func (in *Interner) Without(s *Settings, name string) *Settings {
	name = canonicalName(name)
	return in.Intern(slices.DeleteFunc(slices.Clone(s.List()), func(one Setting) bool { return one.Name == name }))
}

// forget drops a set that the garbage collector has taken, unless an equal one has been made since.
func (in *Interner) forget(key string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.mu.sets[key].Value() == nil {
		delete(in.mu.sets, key)
	}
}

// canonical copies a list with canonical names, each name once, in the order of compareNames.
func canonical(list []Setting) []Setting {
	out := make([]Setting, 0, len(list))
	for _, one := range list {
		one.Name = canonicalName(one.Name)
		at, found := slices.BinarySearchFunc(out, one.Name, func(have Setting, name string) int {
			return compareNames(have.Name, name)
		})
		if found {
			out[at] = one
			continue
		}
		out = slices.Insert(out, at, one)
	}
	return out
}

// joined writes a list as one string. A zero byte cannot occur in a name or in a value, so two lists never look alike.
func joined(list []Setting) string {
	var b strings.Builder
	for _, one := range list {
		b.WriteString(one.Name)
		b.WriteByte(0)
		b.WriteString(one.Value)
		b.WriteByte(0)
	}
	return b.String()
}
