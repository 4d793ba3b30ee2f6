package wire_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/stretchr/testify/require"

	"pgsidecar/proxy/wire"
)

// decode checks that b is one message of a type and decodes its body.
func decode[T pgproto3.Message](t *testing.T, typ byte, b []byte, into T) T {
	t.Helper()
	require.GreaterOrEqual(t, len(b), 5)
	require.Equal(t, typ, b[0])
	require.Equal(t, len(b)-1, int(binary.BigEndian.Uint32(b[1:])))
	require.NoError(t, into.Decode(b[5:]))
	return into
}

// What is appended is a message that another implementation reads as the same, behind what is there already.
func TestAppend_isReadByAnotherImplementation(t *testing.T) {
	before := []byte("before")
	made := func(b []byte) []byte {
		require.Equal(t, before, b[:len(before)])
		return b[len(before):]
	}
	require.Equal(t, &pgproto3.Query{String: "select 'ä'"},
		decode(t, 'Q', made(wire.AppendQuery(before, "select 'ä'")), new(pgproto3.Query)))
	require.Equal(t, &pgproto3.Parse{Name: "name", Query: "select $1", ParameterOIDs: []uint32{23, 0xffffffff}},
		decode(t, 'P', made(wire.AppendParse(before, "name", "select $1\x00\x00\x02\x00\x00\x00\x17\xff\xff\xff\xff")), new(pgproto3.Parse)))
	require.Equal(t, &pgproto3.Describe{ObjectType: 'S', Name: "name"},
		decode(t, 'D', made(wire.AppendTarget(before, wire.Describe, 'S', "name")), new(pgproto3.Describe)))
	require.Equal(t, &pgproto3.Close{ObjectType: 'P', Name: ""},
		decode(t, 'C', made(wire.AppendTarget(before, wire.Close, 'P', "")), new(pgproto3.Close)))
	require.Equal(t, &pgproto3.Sync{}, decode(t, 'S', made(wire.AppendEmpty(before, wire.Sync)), new(pgproto3.Sync)))
	require.Equal(t, &pgproto3.ReadyForQuery{TxStatus: 'T'},
		decode(t, 'Z', made(wire.AppendReadyForQuery(before, wire.InTransaction)), new(pgproto3.ReadyForQuery)))
	require.Equal(t, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")},
		decode(t, 'C', made(wire.AppendCommandComplete(before, "SELECT 1")), new(pgproto3.CommandComplete)))
	require.Equal(t, &pgproto3.ParameterStatus{Name: "DateStyle", Value: "ISO, DMY"},
		decode(t, 'S', made(wire.AppendParameterStatus(before, "DateStyle", "ISO, DMY")), new(pgproto3.ParameterStatus)))
	require.Equal(t, &pgproto3.BackendKeyData{ProcessID: 0x80000001, SecretKey: []byte("0123456789abcdef0123456789abcdef")},
		decode(t, 'K', made(wire.AppendKey(before, 0x80000001, []byte("0123456789abcdef0123456789abcdef"))), new(pgproto3.BackendKeyData)))

	body, err := (&pgproto3.Bind{PreparedStatement: "a", DestinationPortal: "portal", Parameters: [][]byte{nil, []byte("x\x00y")}}).Encode(nil)
	require.NoError(t, err)
	portal, _, rest, ok := wire.ParseBind(body[5:])
	require.True(t, ok)
	bind := decode(t, 'B', made(append(wire.AppendBindHead(before, portal, "shared", len(rest)), rest...)), new(pgproto3.Bind))
	require.Equal(t, "portal", bind.DestinationPortal)
	require.Equal(t, "shared", bind.PreparedStatement)
	require.Equal(t, [][]byte{nil, []byte("x\x00y")}, bind.Parameters)

	definition := "select 1\x00\x00\x00"
	require.Equal(t, wire.AppendParse(nil, "n", definition), append(wire.AppendParseHead(nil, "n", len(definition)), definition...))
}

func TestAppendError_fieldsThatAreSet(t *testing.T) {
	e := wire.Error{Severity: "FATAL", Code: "57P01", Message: "going", Hint: "come back"}
	require.Equal(t, &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P01", Message: "going", Hint: "come back"},
		decode(t, 'E', wire.AppendError(nil, e), new(pgproto3.ErrorResponse)))
	e.Detail, e.Hint = "why", ""
	require.Equal(t, &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P01", Message: "going", Detail: "why"},
		decode(t, 'E', wire.AppendError(nil, e), new(pgproto3.ErrorResponse)))
}

func TestAppendErrorWith_replacesOneField(t *testing.T) {
	original := &pgproto3.ErrorResponse{
		Severity: "FEHLER", SeverityUnlocalized: "ERROR", Code: "26000", Message: `prepared statement "pgsidecar_1" does not exist`,
		File: "prepare.c", Line: 451, Routine: "FetchPreparedStatement",
	}
	b, err := original.Encode(nil)
	require.NoError(t, err)
	want := *original
	want.Message = `prepared statement "mine" does not exist`
	got := decode(t, 'E', wire.AppendErrorWith(nil, wire.Body(b), 'M', want.Message), new(pgproto3.ErrorResponse))
	require.Equal(t, &want, got)
}

func TestErrorField_absentOrBroken(t *testing.T) {
	require.Equal(t, []byte("57014"), wire.ErrorField([]byte("SERROR\x00C57014\x00Mx\x00\x00"), 'C'))
	for _, body := range []string{"", "\x00", "S", "SERROR", "SERROR\x00", "SERROR\x00\x00C57014\x00\x00", "SERROR\x00C57014"} {
		require.Nil(t, wire.ErrorField([]byte(body), 'C'), "%q", body)
	}
}

func TestParseTarget_table(t *testing.T) {
	for _, row := range []struct {
		body string
		ok   bool
		kind byte
		name string
	}{
		{"", false, 0, ""},
		{"S", false, 0, ""},
		{"S\x00", true, 'S', ""},
		{"Pname\x00", true, 'P', "name"},
		{"Sname", false, 0, ""},
		{"Sna\x00me\x00", false, 0, ""},
		{"\x00\x00", true, 0, ""},
	} {
		kind, name, ok := wire.ParseTarget([]byte(row.body))
		require.Equal(t, row.ok, ok, "%q", row.body)
		if ok {
			require.Equal(t, row.kind, kind)
			require.Equal(t, row.name, string(name))
		}
	}
}

// FuzzParseParse: what another implementation reads as a Parse message is split alike, and put together again it is the
// same. The one difference: bytes behind the parameter types are refused, as the server does.
func FuzzParseParse(f *testing.F) {
	for _, body := range []string{"", "n\x00q\x00\x00\x00", "\x00\x00\x00\x01\x00\x00\x00\x17", "n\x00q\x00\x00\x00trailing", "n\x00q\x00\x00\x02\x00\x00\x00\x01", "n\x00q\x00\x00", "\x00select 1"} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var other pgproto3.Parse
		accepted := other.Decode(body) == nil && len(body) == len(other.Name)+1+len(other.Query)+1+2+4*len(other.ParameterOIDs)
		name, definition, query, ok := wire.ParseParse(body)
		require.Equal(t, accepted, ok)
		if !ok {
			return
		}
		require.Equal(t, other.Name, string(name))
		require.Equal(t, other.Query, string(query))
		require.Equal(t, body, wire.Body(wire.AppendParse(nil, string(name), definition)))
	})
}

// FuzzParseBind: what another implementation reads as a Bind message has the same names, and gets another name without
// any other change.
func FuzzParseBind(f *testing.F) {
	for _, body := range []string{"", "p\x00s\x00\x00\x00\x00\x00\x00\x00", "\x00\x00\x00\x01\x00\x01\x00\x01\x00\x00\x00\x01x\x00\x00", "p\x00s", "p"} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var other pgproto3.Bind
		err := other.Decode(body)
		portal, statement, rest, ok := wire.ParseBind(body)
		if err == nil {
			require.True(t, ok)
		}
		if !ok {
			return
		}
		require.Equal(t, body, bytes.Join([][]byte{portal, {0}, statement, {0}, rest}, nil))
		renamed := append(wire.AppendBindHead(nil, portal, "other", len(rest)), rest...)
		if err == nil {
			require.Equal(t, other.DestinationPortal, string(portal))
			require.Equal(t, other.PreparedStatement, string(statement))
			got := decode(t, 'B', renamed, new(pgproto3.Bind))
			other.PreparedStatement = "other"
			require.Equal(t, &other, got)
		}
	})
}

// FuzzParseTarget: Describe and Close messages are read as another implementation reads them.
func FuzzParseTarget(f *testing.F) {
	for _, body := range []string{"", "S\x00", "Pname\x00", "Sna\x00me\x00", "S"} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var other pgproto3.Describe
		accepted := other.Decode(body) == nil
		kind, name, ok := wire.ParseTarget(body)
		require.Equal(t, accepted, ok)
		if ok {
			require.Equal(t, other.ObjectType, kind)
			require.Equal(t, other.Name, string(name))
			require.Equal(t, body, wire.Body(wire.AppendTarget(nil, wire.Describe, kind, string(name))))
		}
	})
}

// FuzzErrorField: no field of an ErrorResponse is read differently from how another implementation reads it, and
// replacing one leaves the others alone.
func FuzzErrorField(f *testing.F) {
	for _, body := range []string{"", "\x00", "SERROR\x00VERROR\x00C57014\x00Mtext\x00\x00", "C1\x00M\x00\x00", "C1", "C1\x00"} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var other pgproto3.ErrorResponse
		code, text := wire.ErrorField(body, 'C'), wire.ErrorField(body, 'M')
		if other.Decode(body) != nil || bytes.Count(body, []byte("C")) > 1 || bytes.Count(body, []byte("M")) > 1 {
			return
		}
		require.Equal(t, other.Code, string(code))
		require.Equal(t, other.Message, string(text))
		got := decode(t, 'E', wire.AppendErrorWith(nil, body, 'M', "new"), new(pgproto3.ErrorResponse))
		if text != nil {
			other.Message = "new"
		}
		require.Equal(t, &other, got)
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte("TimeZone\x00UTC\x00"))
	f.Add([]byte("TimeZone\x00UTC"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, body []byte) {
		var other pgproto3.ParameterStatus
		accepted := other.Decode(body) == nil
		name, value, ok := wire.ParseStatus(body)
		require.Equal(t, accepted, ok)
		if ok {
			require.Equal(t, other.Name, string(name))
			require.Equal(t, other.Value, string(value))
		}
	})
}
