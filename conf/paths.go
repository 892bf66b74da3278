package conf

import (
	"path/filepath"
	"strings"
)

// FilePath returns the path of a file that the configuration file config names. A relative name is relative to the
// folder of config, not to the working folder, so that a configuration and its passwords can be moved together. The
// result is absolute, for messages, unless the working folder is gone; "" stays "".
//
// A configuration that comes through a pipe (/dev/fd/63, as of a shell's <(...)) has no folder of its own. Its names
// are relative to the working folder.
func FilePath(config, name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	folder := filepath.Dir(config)
	if strings.HasPrefix(folder, "/dev") || strings.HasPrefix(folder, "/proc") {
		folder = ""
	}
	path := filepath.Join(folder, name)
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// FilePath calls the function FilePath for the file that c was read from.
func (c *Config) FilePath(name string) string { return FilePath(c.File, name) }
