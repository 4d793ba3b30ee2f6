package session

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgsidecar/proxy/loop"
	"pgsidecar/proxy/state"
	"pgsidecar/proxy/statement"
)

// Image is all there is of a session between two transactions, but for its socket: what another process needs to go on with
// it. Its fields mean what those of Session do.
type Image struct {
	User         raw             `json:"user"`
	Database     raw             `json:"database"`
	PoolUser     raw             `json:"pool_user"`
	PoolDatabase raw             `json:"pool_database"`
	Protocol     uint32          `json:"protocol"`
	Statement    bool            `json:"statement,omitempty"` // pool mode statement, not transaction
	Unsupported  Unsupported     `json:"unsupported,omitempty"`
	Route        Route           `json:"route,omitempty"`
	PID          uint32          `json:"pid"` // in the cancel key
	Secret       []byte          `json:"secret"`
	Startup      []imageSetting  `json:"startup,omitempty"`
	Settings     []imageSetting  `json:"settings,omitempty"`
	Names        []imageName     `json:"names,omitempty"` // the one used longest ago first
	Unnamed      *imageStatement `json:"unnamed,omitempty"`
	Channels     []raw           `json:"channels,omitempty"` // that it listens to
	Idle         time.Duration   `json:"idle,omitempty"`     // since its last request
	Kept         []byte          `json:"kept,omitempty"`     // read from the client and not dealt with
	Unsent       []byte          `json:"unsent,omitempty"`   // for the client and not written
}

type imageSetting struct {
	Name  raw `json:"name"`
	Value raw `json:"value"`
}

type imageStatement struct {
	Definition raw `json:"definition"`
	Reading    raw `json:"reading,omitempty"`
}

type imageName struct {
	imageStatement

	Name raw `json:"name"`
}

// raw is a string in whatever encoding the client uses: JSON would put other characters in place of what is not UTF-8.
type raw string

// MarshalText implements encoding.TextMarshaler.
func (r raw) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, []byte(r)), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *raw) UnmarshalText(text []byte) error {
	plain, err := base64.StdEncoding.AppendDecode(nil, text)
	*r = raw(plain)
	return err
}

// Encode returns the image as bytes.
func (i *Image) Encode() ([]byte, error) {
	return json.Marshal(i) //nolint:gosec // The secret is meant for who reads it: a process of the same user.
}

// DecodeImage reads what Encode has made, and checks that a session can be made of it.
func DecodeImage(encoded []byte) (*Image, error) {
	decoder := json.NewDecoder(strings.NewReader(string(encoded)))
	decoder.DisallowUnknownFields()
	i := new(Image)
	if err := decoder.Decode(i); err != nil {
		return nil, fmt.Errorf("decode session: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("decode session: something follows it")
	}
	if err := i.check(); err != nil {
		return nil, fmt.Errorf("decode session: %w", err)
	}
	return i, nil
}

func (i *Image) check() error {
	if i.Unsupported > RefuseUnsupported {
		return errors.New("what it does with statements that pin is not known")
	}
	if i.Route > Auto {
		return errors.New("its route is not known")
	}
	if i.User == "" || i.Database == "" || i.PoolUser == "" || i.PoolDatabase == "" || i.Protocol>>16 != 3 {
		return errors.New("it does not say whose it is")
	}
	named := make(map[raw]bool, len(i.Names))
	for _, one := range i.Names {
		if one.Name == "" || named[one.Name] || !one.sound() {
			return errors.New("a prepared statement is not in order")
		}
		named[one.Name] = true
	}
	if i.Unnamed != nil && !i.Unnamed.sound() {
		return errors.New("the unnamed prepared statement is not in order")
	}
	for _, one := range slices.Concat(i.Startup, i.Settings) {
		if one.Name == "" || strings.Contains(string(one.Name+one.Value), "\x00") {
			return errors.New("a setting is not in order")
		}
	}
	return nil
}

// sound tells whether the definition has the form of the tail of a Parse message.
func (s *imageStatement) sound() bool {
	_, types, ok := strings.Cut(string(s.Definition), "\x00")
	return ok && len(types) >= 2 && len(types) == 2+4*(int(types[0])<<8|int(types[1]))
}

// image returns what another process has to know of the session, which is between two transactions.
func (s *Session) image() Image {
	p := s.who.Pool
	i := Image{
		User: raw(s.who.User), Database: raw(s.who.Database), PoolUser: raw(p.User()), PoolDatabase: raw(p.Database()),
		Protocol: s.who.Protocol, Statement: s.who.Mode == Statement, Unsupported: s.who.Unsupported, Route: s.who.Route,
		PID: s.key.PID(), Secret: s.key.Secret(),
		Startup: imageSettings(s.startup), Settings: imageSettings(s.settings),
		Idle: max(time.Duration(loop.Nanos()-s.since), 0),
	}
	if s.names != nil {
		i.Names = make([]imageName, 0, s.names.Len())
		s.names.InOrder(func(name string, st *statement.Statement) {
			i.Names = append(i.Names, imageName{imageStatement{raw(st.Definition), raw(st.Reading)}, raw(name)})
		})
	}
	if s.listening != nil {
		for channel := range s.listening.channels {
			i.Channels = append(i.Channels, raw(channel))
		}
	}
	if s.unnamed != nil {
		i.Unnamed = &imageStatement{raw(s.unnamed.Definition), raw(s.unnamed.Reading)}
	}
	return i
}

func imageSettings(set *state.Settings) []imageSetting {
	list := make([]imageSetting, 0, len(set.List()))
	for _, one := range set.List() {
		list = append(list, imageSetting{raw(one.Name), raw(one.Value)})
	}
	return list
}

func (s *Session) internImage(list []imageSetting) *state.Settings {
	settings := make([]state.Setting, 0, len(list))
	for _, one := range list {
		settings = append(settings, state.Setting{Name: string(one.Name), Value: string(one.Value)})
	}
	set := s.worker.shared.Settings.Intern(settings)
	s.worker.shared.Custom.learn(set)
	return set
}

// adoptImage makes the session what the image says. It is called on the session's loop.
func (s *Session) adoptImage(i *Image) {
	s.startup, s.settings = s.internImage(i.Startup), s.internImage(i.Settings)
	s.since = s.worker.Loop.Nanos() - int64(i.Idle)
	if s.reads != nil {
		s.reads.needs.Wrote = loop.Nanos() // it may have written there just now
	}
	own := make(map[raw]string)
	for _, one := range i.Names {
		s.nameStatement(string(one.Name), s.internStatement(&one.imageStatement, own))
	}
	if i.Unnamed != nil {
		s.unnamed = s.internStatement(i.Unnamed, own)
	}
}

// internStatement finds or makes the statement. A reading that was nobody else's (see Session.reading) has a number of the
// other process, which means something else here: it gets a new one. own has those that it has got already.
func (s *Session) internStatement(st *imageStatement, own map[raw]string) *statement.Statement {
	reading := string(st.Reading)
	if strings.HasPrefix(reading, "?") {
		if own[st.Reading] == "" {
			s.reread()
			own[st.Reading] = "?" + strconv.FormatUint(uint64(s.rereads), 36)
			s.rereads = 0
		}
		reading = own[st.Reading]
	}
	query := strings.IndexByte(string(st.Definition), 0)
	return s.worker.table.Intern(reading, []byte(st.Definition), query)
}
