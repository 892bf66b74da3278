package tlsconn

import (
	"fmt"
	"strings"
)

// A Part is one of the files that the material of a Server or Client is from.
type Part uint8

// The parts.
const (
	CertificateFile Part = iota // KeyPair.CertPEM
	KeyFile                     // KeyPair.KeyPEM
	OCSPFile                    // KeyPair.OCSP
	AuthorityFile               // Material.ClientCAs or ClientMaterial.CA
	RevocationFile              // Material.ClientCRL
	TicketKeyFile               // Material.TicketKeys
)

// String returns the part's name, such as "certificate".
func (p Part) String() string {
	return [...]string{"certificate", "key", "OCSP answer", "authorities", "revocation list", "ticket keys"}[p]
}

// A Fault says what is wrong with a part of the material. It is immutable.
type Fault struct {
	Part  Part
	Index int // of the certificate in Material.Certificates; 0 for parts of which there is one
	Err   error
}

// Error returns the part and what is wrong with it.
func (f *Fault) Error() string { return fmt.Sprintf("%s: %v", f.Part, f.Err) }

// Unwrap returns what is wrong, without the part.
func (f *Fault) Unwrap() error { return f.Err }

// Faults are all that is wrong with a material, in the order of its parts.
type Faults []*Fault

// Error returns all faults, one a line.
func (all Faults) Error() string {
	lines := make([]string, len(all))
	for i, f := range all {
		lines[i] = f.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the faults one by one.
func (all Faults) Unwrap() []error {
	errs := make([]error, len(all))
	for i, f := range all {
		errs[i] = f
	}
	return errs
}

// A faultList collects what is found in a material.
type faultList struct{ errors, warnings Faults }

func (l *faultList) wrong(p Part, index int, err error) {
	l.errors = append(l.errors, &Fault{p, index, err})
}

func (l *faultList) warn(p Part, index int, format string, args ...any) {
	l.warnings = append(l.warnings, &Fault{p, index, fmt.Errorf(format, args...)})
}
