package auth

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// ReadUsers reads a users file. Its faults come all at once, each as file:line: what is wrong: what to write instead.
// Warnings, if any, are sentences for the log.
func ReadUsers(path string) (users []User, warnings []string, err error) {
	f, err := os.Open(path) //nolint:gosec // The path is the operator's own.
	if err != nil {
		return nil, nil, fmt.Errorf("open users file: %w", err)
	}
	defer func() { _ = f.Close() }() // was only read
	info, err := f.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("open users file: %w", err)
	}
	if info.Mode()&0o004 != 0 {
		warnings = append(warnings, fmt.Sprintf("users file %s can be read by every user of this machine: chmod o-r", path))
	}
	users, err = ParseUsers(path, f)
	return users, warnings, err
}

// ParseUsers reads lines of the form
//
//	"name" "secret"
//
// as in PgBouncer's userlist.txt: a doubled quote stands for a quote, what follows the secret is ignored, and so are
// lines that are empty or begin with ; or #. The secret is what ParseSecret takes; "" is no secret. file names the
// source in faults.
func ParseUsers(file string, r io.Reader) ([]User, error) {
	var (
		users  []User
		faults []error
		seen   = make(map[string]int) // the line that a name was first on
		lines  = bufio.NewScanner(r)
		n      int
	)
	lines.Buffer(nil, maxPassword+4096)
	for lines.Scan() {
		n++
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == ';' || line[0] == '#' {
			continue
		}
		u, err := parseUser(line)
		if err == nil && seen[u.Name] != 0 {
			err = fmt.Errorf("user %q is on line %d already: remove one of the two", u.Name, seen[u.Name])
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s:%d: %w", file, n, err))
			continue
		}
		seen[u.Name] = n
		users = append(users, u)
	}
	if err := lines.Err(); err != nil {
		faults = append(faults, fmt.Errorf("%s:%d: read users file: %w", file, n+1, err))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return users, nil
}

// parseUser reads one line. Its errors do not repeat the line, which may hold a password.
func parseUser(line string) (User, error) {
	name, rest, ok := cutQuoted(line)
	if !ok || name == "" {
		return User{}, errors.New(`no user name: write "name" "secret", both in double quotes`)
	}
	text, rest, ok := cutQuoted(strings.TrimSpace(rest))
	if !ok {
		return User{}, fmt.Errorf(`user %q has no secret: write "name" "secret", both in double quotes`, name)
	}
	if rest != "" && !strings.ContainsAny(rest[:1], " \t") {
		return User{}, fmt.Errorf(`user %q has text right behind the secret: write "" for a quote within it`, name)
	}
	if strings.ContainsRune(name+text, 0) {
		return User{}, fmt.Errorf("user %q has a zero byte in its name or secret: remove it", name)
	}
	s, err := ParseSecret(text)
	if err != nil {
		return User{}, fmt.Errorf("user %q: %w", name, err)
	}
	return User{Name: name, Secret: s}, nil
}

// cutQuoted takes a string in double quotes off the front of s.
func cutQuoted(s string) (text, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		return "", s, false
	}
	var b strings.Builder
	for s = s[1:]; ; {
		part, after, found := strings.Cut(s, `"`)
		if !found {
			return "", s, false
		}
		b.WriteString(part)
		if !strings.HasPrefix(after, `"`) {
			return b.String(), after, true
		}
		b.WriteByte('"')
		s = after[1:]
	}
}
