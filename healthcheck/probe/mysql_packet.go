package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// The limits of what a MySQL server may send. The largest answer to a check is a row of SHOW REPLICA STATUS for each
// source, with about 60 columns. The longest packet is a row with a GTID set, which the server cuts at 1,024
// characters in SHOW VARIABLES.
const (
	mostMySQLBytes     = 256 << 10
	longestMySQLPacket = 64 << 10
)

// The first bytes of packets (MySQL's manual, "Protocol Basics").
const (
	mysqlOK       = 0x00
	mysqlMoreData = 0x01
	mysqlInFile   = 0xfb // a request for a file of this machine
	mysqlEOF      = 0xfe // at login: a request for another authentication
	mysqlERR      = 0xff
)

// A mysqlSession is one login and the queries after it. Its errors are checkErrors, or those of the connection.
type mysqlSession struct {
	r        io.Reader
	w        io.Writer
	sequence byte   // of the next packet
	password string // removed from the server's messages
}

// write sends one packet.
func (s *mysqlSession) write(body []byte) error {
	n := len(body)
	packet := append([]byte{byte(n), byte(n >> 8), byte(n >> 16), s.sequence}, body...)
	s.sequence++
	_, err := s.w.Write(packet)
	return err
}

// read returns the next packet, which has one byte or more. If it is an error of the server, read returns that as a
// checkError.
func (s *mysqlSession) read() ([]byte, error) {
	var header [4]byte
	if _, err := io.ReadFull(s.r, header[:]); err != nil {
		return nil, err
	}
	return s.body(header, nil)
}

// body reads the rest of a packet that begins with start.
func (s *mysqlSession) body(header [4]byte, start []byte) ([]byte, error) {
	n := mysqlLength(header)
	if n == 0 || n > longestMySQLPacket {
		return nil, unhealthyf("not a mysql server: announced a packet of %d bytes", n)
	}
	packet := bytes.NewBuffer(start) // it grows as the bytes arrive
	if _, err := io.CopyN(packet, s.r, int64(n-len(start))); err != nil {
		return nil, err
	}
	b := packet.Bytes()
	if b[0] == mysqlERR { // whatever its sequence: a server that ends a session does not count
		return nil, s.failed(b)
	}
	if header[3] != s.sequence {
		return nil, unhealthyf("not a mysql server: sent packet %d instead of %d", header[3], s.sequence)
	}
	s.sequence++
	return b, nil
}

// mysqlLength returns the length of a packet from its header.
func mysqlLength(header [4]byte) int {
	return int(header[0]) | int(header[1])<<8 | int(header[2])<<16
}

// A mysqlTable is the answer to a query. Its zero value has no columns, as the answer to a statement that is no query.
type mysqlTable struct {
	columns []string
	rows    [][][]byte // as many values as columns; nil is NULL
}

// query sends one query and reads the whole answer.
func (s *mysqlSession) query(text string) (mysqlTable, error) {
	const comQuery = 3
	s.sequence = 0
	if err := s.write(append([]byte{comQuery}, text...)); err != nil {
		return mysqlTable{}, err
	}
	b, err := s.read()
	switch {
	case err != nil:
		return mysqlTable{}, err
	case b[0] == mysqlOK:
		return mysqlTable{}, nil
	case b[0] == mysqlInFile, b[0] == mysqlEOF:
		return mysqlTable{}, unhealthyf("not a mysql server: unexpected answer to a query")
	}
	count := mysqlFields{b: b}
	n := count.number()
	if count.bad || len(count.b) > 0 || n == 0 || n > longestMySQLPacket {
		return mysqlTable{}, unhealthyf("not a mysql server: nonsense in the answer to a query")
	}
	return s.table(int(n))
}

// table reads the columns and rows of an answer with n columns.
func (s *mysqlSession) table(n int) (table mysqlTable, err error) {
	nonsense := unhealthyf("not a mysql server: nonsense in the answer to a query")
	for {
		b, err := s.read()
		if err != nil {
			return mysqlTable{}, err
		}
		if b[0] == mysqlEOF && len(b) < 9 {
			break
		}
		f := mysqlFields{b: b}
		for range 4 { // catalog, schema, alias of the table, table
			f.text()
		}
		table.columns = append(table.columns, string(f.text()))
		if f.bad || len(table.columns) > n {
			return mysqlTable{}, nonsense
		}
	}
	if len(table.columns) != n {
		return mysqlTable{}, nonsense
	}
	for {
		b, err := s.read()
		if err != nil {
			return mysqlTable{}, err
		}
		if b[0] == mysqlEOF && len(b) < 9 {
			return table, nil
		}
		f := mysqlFields{b: b}
		var row [][]byte
		for range n {
			row = append(row, f.text())
			if f.bad {
				return mysqlTable{}, nonsense
			}
		}
		if len(f.b) > 0 {
			return mysqlTable{}, nonsense
		}
		table.rows = append(table.rows, row)
	}
}

// A mysqlFields takes a packet apart. After a field that is not there it is bad, and all further fields are empty.
type mysqlFields struct {
	b   []byte // what is left
	bad bool
}

// take returns the next n bytes.
func (f *mysqlFields) take(n int) []byte {
	if f.bad || n < 0 || n > len(f.b) {
		f.bad, f.b = true, nil
		return make([]byte, max(0, min(n, 16))) // enough for fields of a fixed length
	}
	taken := f.b[:n:n]
	f.b = f.b[n:]
	return taken
}

// line returns the bytes up to the next NUL, or up to the end.
func (f *mysqlFields) line() string {
	line, rest, _ := bytes.Cut(f.b, []byte{0})
	f.b = rest
	return string(line)
}

// number returns a number of variable length.
func (f *mysqlFields) number() uint64 {
	switch first := f.take(1)[0]; first {
	case 0xfc:
		return uint64(binary.LittleEndian.Uint16(f.take(2)))
	case 0xfd:
		b := f.take(3)
		return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16
	case 0xfe:
		return binary.LittleEndian.Uint64(f.take(8))
	case mysqlInFile, mysqlERR:
		f.bad = true
		return 0
	default:
		return uint64(first)
	}
}

// text returns a text with its length in front; nil is NULL.
func (f *mysqlFields) text() []byte {
	if len(f.b) > 0 && f.b[0] == 0xfb {
		f.take(1)
		return nil
	}
	n := f.number()
	if n > uint64(len(f.b)) {
		f.bad = true
		return nil
	}
	return f.take(int(n))
}

// A mysqlServerError is the number of an error that the server sent (MySQL's manual, "Server Error Message Reference").
type mysqlServerError struct{ code uint16 }

// Error returns the number.
func (e mysqlServerError) Error() string { return fmt.Sprintf("mysql error %d", e.code) }

// failed puts an error packet into words.
func (s *mysqlSession) failed(b []byte) error {
	f := mysqlFields{b: b[1:]}
	code := binary.LittleEndian.Uint16(f.take(2))
	text := f.b
	if len(text) >= 6 && text[0] == '#' { // the SQLSTATE, which is not there before the login
		text = text[6:]
	}
	message := string(text)
	if s.password != "" {
		message = strings.ReplaceAll(message, s.password, "***")
	}
	return mysqlError(code, escaped(message)).because(mysqlServerError{code})
}

// mysqlError puts an error of the server into words.
func mysqlError(code uint16, message string) *checkError {
	switch code {
	case 1040, 1203, 1226: // ER_CON_COUNT_ERROR, ER_TOO_MANY_USER_CONNECTIONS, ER_USER_LIMIT_REACHED
		return unhealthyf("too many connections: %s", message)
	case 1129: // ER_HOST_IS_BLOCKED: after max_connect_errors connections that ended during the login
		return unhealthyf("the server blocks this host: %s", message)
	case 1047: // ER_UNKNOWN_COM_ERROR: a Galera node that takes no queries
		return unhealthyf("not accepting queries: %s", message)
	case 1053: // ER_SERVER_SHUTDOWN
		return unhealthyf("shutting down: %s", message)
	case 1045, 1698: // ER_ACCESS_DENIED_ERROR; the message adds nothing but the user's name
		return refusedf("authentication refused")
	// host not allowed; account locked (MySQL, MariaDB), or blocked after wrong passwords (MySQL, MariaDB); password
	// expired; no TLS
	case 1130, 3118, 4151, 3955, 4150, 1820, 1862, 3159:
		return refusedf("not allowed to log in: %s", message)
	case 1251, 1524, 2059: // the server or the account has an authentication that one of the sides lacks
		return refusedf("the server wants an authentication not known here")
	case 1049: // ER_BAD_DB_ERROR
		return refusedf("no such database: %s", message)
	case 1044, 1142, 1143, 1227, 1370: // access denied to a database, a table, a column, a statement, a routine
		return refusedf("not permitted: %s", message)
	case 1317, 1969, 3024: // interrupted; max_statement_time of MariaDB, max_execution_time of MySQL
		return unhealthyf("query cancelled: %s", message)
	}
	return unhealthyf("answered with an error: %s", message)
}
