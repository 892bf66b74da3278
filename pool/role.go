package pool

import "strconv"

// A Role is what the source of a backend says the backend is in its cluster, such as Patroni's leader. It decides
// nothing here: checks take it into account, and what they find out is the verdict. The zero value is RoleUnknown.
type Role uint8

// The roles.
const (
	RoleUnknown Role = iota // the source names none
	RolePrimary             // takes writes
	RoleReplica             // follows a primary
)

// String returns the role as a lower-case word.
func (r Role) String() string {
	switch r {
	case RoleUnknown:
		return "unknown"
	case RolePrimary:
		return "primary"
	case RoleReplica:
		return "replica"
	}
	return "role(" + strconv.Itoa(int(r)) + ")"
}

func validateRole(r Role) error {
	if r > RoleReplica {
		return &InvalidBackendError{Field: fieldRole, Value: r.String(), Want: "unknown, primary or replica"}
	}
	return nil
}
