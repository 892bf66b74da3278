package gate

// What the tests with whole servers need of this package's inside. They are a package of their own, since a server
// imports this package.

// DescriptorsLeft is how many descriptors are left to sessions and flows.
func DescriptorsLeft(g *Gate) int64 { return g.descriptorsLeft() }

// SetCapacity says how many sessions there are descriptors for, until Apply measures that anew.
func SetCapacity(g *Gate, sessions int64) { g.capacity.Store(sessions) }
