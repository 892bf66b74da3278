package wire

// An Alert is the description of a fatal TLS alert (RFC 8446, 6).
type Alert byte

// The alerts that are sent here.
const (
	AlertDecodeError      Alert = 50  // a message cannot be decoded
	AlertInternalError    Alert = 80  // the server cannot serve, and the client is not to blame
	AlertUnrecognizedName Alert = 112 // nobody here has the name that the client asks for (RFC 6066, 3)
)

// AppendAlert appends the record of a fatal alert, as a server sends it before any version is agreed on.
func AppendAlert(to []byte, a Alert) []byte {
	const (
		recordAlert = 21
		minor       = 3 // TLS 1.2, as in every record of TLS 1.3 but the first
		fatal       = 2
	)
	return append(to, recordAlert, tlsMajor, minor, 0, 2, fatal, byte(a))
}
