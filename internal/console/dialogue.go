package console

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// dialogue is one connection. The goroutine of Serve has it.
type dialogue struct {
	*Console

	wire       *pgproto3.Backend
	local      bool // It comes from this machine.
	statements map[string]*statement
	portals    map[string]*portal
	skipping   bool // Up to the next Sync, after an error in the extended protocol.
}

// statement is a prepared one. Parameters are none: nothing here takes any.
type statement struct {
	command *command // nil: it is empty
}

// portal is a statement with the formats of its columns.
type portal struct {
	*statement

	formats []int16
}

// mostPrepared bounds the statements and portals of a connection.
const mostPrepared = 1000

// greet says what a client expects to be told after its login.
func (d *dialogue) greet() error {
	for _, p := range [][2]string{
		{"server_version", d.config.Version + "/pgsidecar"},
		{"client_encoding", "UTF8"},
		{"server_encoding", "UTF8"},
		{"DateStyle", "ISO, MDY"},
		{"TimeZone", "UTC"},
		{"integer_datetimes", "on"},
		{"standard_conforming_strings", "on"},
		{"is_superuser", "off"},
	} {
		d.wire.Send(&pgproto3.ParameterStatus{Name: p[0], Value: p[1]})
	}
	d.wire.Send(&pgproto3.BackendKeyData{SecretKey: make([]byte, 4)}) // Nothing here can be cancelled but by hanging up.
	return d.ready()
}

func (d *dialogue) ready() error {
	d.wire.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return d.wire.Flush()
}

// serve answers until the client leaves.
func (d *dialogue) serve(ctx context.Context) error {
	if err := d.greet(); err != nil {
		return err
	}
	for {
		message, err := d.wire.Receive()
		if err != nil {
			return err
		}
		switch m := message.(type) {
		case *pgproto3.Terminate:
			return nil
		case *pgproto3.Query:
			d.query(ctx, m.String)
			err = d.ready()
		case *pgproto3.Sync:
			d.skipping = false
			err = d.ready()
		case *pgproto3.Flush:
			err = d.wire.Flush()
		default:
			if d.skipping {
				continue
			}
			if err := d.extended(ctx, message); err != nil {
				d.refuse(err)
				d.skipping = true
			}
		}
		if err != nil {
			return err
		}
	}
}

// query runs the statements of a simple query up to the first that fails.
func (d *dialogue) query(ctx context.Context, text string) {
	texts := strings.Split(text, ";") // Nothing here has a quote in it.
	empty := true
	for _, text := range texts {
		c, err := d.understand(text)
		if c == nil && err == nil {
			continue
		}
		empty = false
		if err == nil {
			d.describe(c, nil)
			err = d.execute(ctx, c, nil)
		}
		if err != nil {
			d.refuse(err)
			return
		}
	}
	if empty {
		d.wire.Send(&pgproto3.EmptyQueryResponse{})
	}
}

// extended answers a message of the extended protocol.
func (d *dialogue) extended(ctx context.Context, message pgproto3.FrontendMessage) error {
	switch m := message.(type) {
	case *pgproto3.Parse:
		c, err := d.understand(strings.TrimSuffix(strings.TrimSpace(m.Query), ";"))
		if err != nil {
			return err
		}
		if len(d.statements) >= mostPrepared {
			return errors.New("too many prepared statements")
		}
		d.statements[m.Name] = &statement{command: c}
		d.wire.Send(&pgproto3.ParseComplete{})
	case *pgproto3.Bind:
		s := d.statements[m.PreparedStatement]
		if s == nil {
			return &missingError{"prepared statement", m.PreparedStatement}
		}
		if len(d.portals) >= mostPrepared {
			return errors.New("too many portals")
		}
		d.portals[m.DestinationPortal] = &portal{statement: s, formats: append([]int16(nil), m.ResultFormatCodes...)}
		d.wire.Send(&pgproto3.BindComplete{})
	case *pgproto3.Describe:
		return d.describeNamed(m)
	case *pgproto3.Execute:
		p := d.portals[m.Portal]
		if p == nil {
			return &missingError{"portal", m.Portal}
		}
		if p.command == nil {
			d.wire.Send(&pgproto3.EmptyQueryResponse{})
			return nil
		}
		return d.execute(ctx, p.command, p.formats)
	case *pgproto3.Close:
		if m.ObjectType == 'S' {
			delete(d.statements, m.Name)
		} else {
			delete(d.portals, m.Name)
		}
		d.wire.Send(&pgproto3.CloseComplete{})
	default:
		return errors.New("the console speaks the simple and the extended query protocol only")
	}
	return nil
}

func (d *dialogue) describeNamed(m *pgproto3.Describe) error {
	if m.ObjectType == 'S' {
		s := d.statements[m.Name]
		if s == nil {
			return &missingError{"prepared statement", m.Name}
		}
		d.wire.Send(&pgproto3.ParameterDescription{})
		d.describeOrNot(s.command, nil)
		return nil
	}
	p := d.portals[m.Name]
	if p == nil {
		return &missingError{"portal", m.Name}
	}
	d.describeOrNot(p.command, p.formats)
	return nil
}

func (d *dialogue) describeOrNot(c *command, formats []int16) {
	if c == nil || c.show == nil {
		d.wire.Send(&pgproto3.NoData{})
		return
	}
	d.describe(c, formats)
}

// describe sends what the rows of a command look like, if it has any.
func (d *dialogue) describe(c *command, formats []int16) {
	if c.show == nil {
		return
	}
	description := &pgproto3.RowDescription{}
	for i, column := range c.show.columns {
		f := column.field()
		f.Format = formatOf(formats, i)
		description.Fields = append(description.Fields, f)
	}
	d.wire.Send(description)
}

// execute runs a command.
func (d *dialogue) execute(ctx context.Context, c *command, formats []int16) error {
	if c.do != nil {
		if err := d.wire.Flush(); err != nil { // What waits for others may take long.
			return err
		}
		if err := c.do(ctx); err != nil {
			return err
		}
		d.wire.Send(&pgproto3.CommandComplete{CommandTag: []byte(c.tag)})
		return nil
	}
	rows, err := c.rows(ctx)
	if err != nil {
		return err
	}
	for _, row := range rows {
		values := make([][]byte, len(row))
		for i, v := range row {
			values[i] = encode(v, formatOf(formats, i))
		}
		d.wire.Send(&pgproto3.DataRow{Values: values})
	}
	d.wire.Send(&pgproto3.CommandComplete{CommandTag: []byte(c.tag)})
	return nil
}

// formatOf returns the format of a column: none given means text, one given is that of all.
func formatOf(formats []int16, i int) int16 {
	switch {
	case len(formats) == 1:
		return formats[0]
	case i < len(formats):
		return formats[i]
	}
	return 0
}

// missingError says that nothing has that name.
type missingError struct{ what, name string }

func (e *missingError) Error() string { return fmt.Sprintf("%s %q does not exist", e.what, e.name) }

// refuse answers with an error.
func (d *dialogue) refuse(err error) { d.wire.Send(errorResponse("ERROR", codeOf(err), err.Error())) }

// fatal ends a connection that has not been greeted.
func (d *dialogue) fatal(code, message string) {
	d.wire.Send(errorResponse("FATAL", code, message))
	_ = d.wire.Flush() // Who is gone already needs no reason.
}

func errorResponse(severity, code, message string) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{Severity: severity, SeverityUnlocalized: severity, Code: code, Message: message}
}

// codeOf returns the SQLSTATE of an error.
func codeOf(err error) string {
	if _, ok := errors.AsType[*unknownError](err); ok {
		return "42601"
	}
	if _, ok := errors.AsType[notHereError](err); ok {
		return "42501"
	}
	if _, ok := errors.AsType[*missingError](err); ok {
		return "26000"
	}
	return "55000"
}
