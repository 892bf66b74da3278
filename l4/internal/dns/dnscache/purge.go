package dnscache

import "bytes"

// purgeStep is how many slots are looked at while a lock is held, so that no loop that misses waits for more than some ten microseconds.
const purgeStep = 1024

// Purge forgets what is known of a name, all types, and returns how many entries it was. What is being asked just now is answered, but not
// kept. Its error is an ErrInvalidName.
func (c *Cache[W]) Purge(name string) (int, error) {
	wanted, err := parseName(name)
	if err != nil {
		return 0, err
	}
	return c.purge(func(name []byte) bool { return bytes.Equal(name, wanted) }), nil
}

// PurgeSuffix is Purge for a name and all names below it.
func (c *Cache[W]) PurgeSuffix(suffix string) (int, error) {
	wanted, err := parseName(suffix)
	if err != nil {
		return 0, err
	}
	return c.purge(func(name []byte) bool { return under(name, wanted) }), nil
}

// PurgeAll is Purge for all names.
func (c *Cache[W]) PurgeAll() int {
	return c.purge(func([]byte) bool { return true })
}

// purge first sees to it that nothing old comes in any more. It may take some milliseconds with a million entries, and is not for a loop.
func (c *Cache[W]) purge(which func(name []byte) bool) int {
	for i := range c.boards {
		c.boards[i].markPurged(which)
	}
	return c.store.removeIf(which)
}
