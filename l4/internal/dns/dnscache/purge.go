package dnscache

import "bytes"

// purgeStep is how many slots are searched while a lock is held, so that a loop with a miss waits for about ten
// microseconds at most.
const purgeStep = 1024

// Purge removes all entries of a name, of all types, and returns how many they were. Questions in flight are answered,
// but their answers are not stored. Its error is an ErrInvalidName.
func (c *Cache[W]) Purge(name string) (int, error) {
	wanted, err := parseName(name)
	if err != nil {
		return 0, err
	}
	return c.purge(func(name []byte) bool { return bytes.Equal(name, wanted) }), nil
}

// PurgeSuffix is like Purge, for a name and all names below it.
func (c *Cache[W]) PurgeSuffix(suffix string) (int, error) {
	wanted, err := parseName(suffix)
	if err != nil {
		return 0, err
	}
	return c.purge(func(name []byte) bool { return under(name, wanted) }), nil
}

// PurgeAll is like Purge, for all names.
func (c *Cache[W]) PurgeAll() int {
	return c.purge(func([]byte) bool { return true })
}

// purge first marks the flights, so that no old answer is stored afterwards. With a million entries it may take some
// milliseconds, so a loop must not call it.
func (c *Cache[W]) purge(which func(name []byte) bool) int {
	for i := range c.boards {
		c.boards[i].markPurged(which)
	}
	return c.store.removeIf(which)
}
