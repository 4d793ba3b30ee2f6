package wire

// Message types that a client sends (PostgreSQL documentation, "Message Formats").
const (
	Bind         byte = 'B'
	Close        byte = 'C'
	CopyData     byte = 'd' // both directions
	CopyDone     byte = 'c' // both directions
	CopyFail     byte = 'f'
	Describe     byte = 'D'
	Execute      byte = 'E'
	Flush        byte = 'H'
	FunctionCall byte = 'F'
	Parse        byte = 'P'
	Query        byte = 'Q'
	Sync         byte = 'S'
	Terminate    byte = 'X'
)

// Message types that a server sends.
const (
	BackendKeyData       byte = 'K'
	BindComplete         byte = '2'
	CloseComplete        byte = '3'
	CommandComplete      byte = 'C'
	CopyBothResponse     byte = 'W'
	CopyInResponse       byte = 'G'
	CopyOutResponse      byte = 'H'
	DataRow              byte = 'D'
	EmptyQueryResponse   byte = 'I'
	ErrorResponse        byte = 'E'
	FunctionCallResponse byte = 'V'
	NoData               byte = 'n'
	NoticeResponse       byte = 'N'
	NotificationResponse byte = 'A'
	ParameterDescription byte = 't'
	ParameterStatus      byte = 'S'
	ParseComplete        byte = '1'
	PortalSuspended      byte = 's'
	ReadyForQuery        byte = 'Z'
	RowDescription       byte = 'T'
)

// Transaction states of a ReadyForQuery message.
const (
	Idle          byte = 'I' // not in a transaction
	InTransaction byte = 'T'
	Failed        byte = 'E' // in a transaction that has failed
)

// Class says how much of a message its reader has to see.
type Class uint8

// The classes of messages.
const (
	Unknown Class = iota // this side of the connection never sends it
	Pass                 // forwarded as it is; may be cut anywhere and joined with its neighbours
	Note                 // forwarded as it is, but that it came matters; may be cut behind its header
	Whole                // seen whole, as long as it fits the Scanner's limit
	Cut                  // its head is seen (as much as the reader asks for), the rest is streamed
)

// Classes describes one direction of a connection: what each message type is and how long it may be.
type Classes struct {
	class [256]Class
	limit [256]uint32 // of the length word, which counts itself but not the type byte
}

const (
	headerSize   = 5          // type byte and length word
	smallMessage = 10_000     // PQ_SMALL_MESSAGE_LIMIT of the server
	largeMessage = 0x3ffffffe // PQ_LARGE_MESSAGE_LIMIT of the server
	largeReply   = 0x7fffffff // a row of 1 GB with its header is longer than what the server takes
)

func (c *Classes) set(class Class, limit uint32, types ...byte) {
	for _, t := range types {
		c.class[t] = class
		c.limit[t] = limit
	}
}

// FromClient returns the classes of what a logged-in client sends. Types and limits are those of the server's
// SocketBackend, so that what it would refuse is refused here.
func FromClient() *Classes {
	c := new(Classes)
	c.set(Whole, largeMessage, Query, Parse)
	c.set(Cut, largeMessage, Bind)
	c.set(Note, largeMessage, FunctionCall)
	c.set(Whole, smallMessage, Describe, Close)
	c.set(Note, smallMessage, Execute, Sync, Flush, Terminate, CopyDone, CopyFail)
	c.set(Pass, largeMessage, CopyData)
	return c
}

// FromServer returns the classes of what a server sends after authentication.
func FromServer() *Classes {
	c := new(Classes)
	c.set(Pass, largeReply, DataRow, CopyData)
	c.set(Note, largeReply, RowDescription, ParameterDescription, NoticeResponse,
		FunctionCallResponse, CopyInResponse, CopyOutResponse, CopyBothResponse)
	c.set(Note, smallMessage, ParseComplete, BindComplete, CloseComplete, NoData, EmptyQueryResponse, PortalSuspended, CopyDone)
	c.set(Whole, largeReply, ErrorResponse, NotificationResponse, ParameterStatus, CommandComplete, BackendKeyData)
	c.set(Whole, smallMessage, ReadyForQuery)
	return c
}
