package session

import (
	"strconv"

	"pgsidecar/proxy/statement"
)

// What a prepared statement means depends on the settings under which it is prepared: search_path, TimeZone and others
// (state.Settings.Reading). Clients share a statement on a server only if those are equal, too.

// reading is the key of the settings under which what the client prepares now is read.
func (s *Session) reading() string {
	if s.rereads == 0 {
		return s.settings.Reading()
	}
	return "?" + strconv.FormatUint(uint64(s.rereads), 36)
}

// reread notes that what has been sent may change the reading. Its outcome is known when the transaction is over; what is
// prepared until then is shared with nobody.
func (s *Session) reread() {
	s.worker.rereads++
	if s.worker.rereads == 0 { // 0 means that the reading is known
		s.worker.rereads = 1
	}
	s.rereads = s.worker.rereads
}

// asReadNow returns the statement with the same definition under the reading of now, for a server on which it is going to be
// prepared.
func (s *Session) asReadNow(st *statement.Statement) *statement.Statement {
	now := s.reading()
	if st.Reading == now || !st.Kept() {
		return st
	}
	return s.worker.table.Intern(now, []byte(st.Definition), len(st.Query()))
}
