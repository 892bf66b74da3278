package main

import (
	"os"
	"path/filepath"
)

// image makes the folder that a container image is built from: its Containerfile, the root of its file system, and what
// in it belongs to the program's user.
func (r *release) image(b built) error {
	folder := filepath.Join(r.build, "image-"+b.arch)
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	for _, name := range []string{
		"root/etc/limeload", "root/usr/bin", "owned/run/limeload", "owned/var/lib/limeload",
	} {
		if err := os.MkdirAll(filepath.Join(folder, name), 0o755); err != nil {
			return err
		}
	}
	program := filepath.Join(folder, "root/usr/bin/limeload-l4")
	for from, to := range map[string]string{
		b.program():                  program,
		packaging + "/lb.toml":       filepath.Join(folder, "root/etc/limeload/lb.toml"),
		packaging + "/Containerfile": filepath.Join(folder, "Containerfile"),
	} {
		if err := copyFile(from, to); err != nil {
			return err
		}
	}
	return os.Chmod(program, 0o755)
}
