package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
)

// modules are what kernel TLS needs in Debian's kernel: itself, and its ciphers in C and with the processor's
// instructions. Nothing inside loads a module on demand, so that all of them are here; those that they depend on are
// found by their names in them.
var modules = []string{
	"tls", "ctr", "gcm", "ghash-generic", "chacha20poly1305", "chacha_generic", "poly1305_generic",
	"aesni-intel", "ghash-clmulni-intel", "chacha-x86_64", "poly1305-x86_64",
}

// A kernel is an unpacked kernel package.
type kernel struct {
	image   string   // the path of what boots
	modules []string // the paths of its modules, in the order in which they can be loaded
}

// findKernel finds the kernel in a folder, and the modules to load.
func findKernel(dir string) (k kernel, err error) {
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil {
		return k, err
	}
	if len(images) != 1 {
		return k, fmt.Errorf("%d kernels in %s, want one: remove the folder, and let `make tools` unpack it",
			len(images), filepath.Join(dir, "boot"))
	}
	k.image = images[0]
	files := map[string]string{} // of each module, by its name
	err = filepath.WalkDir(filepath.Join(dir, "lib", "modules"), func(path string, d fs.DirEntry, err error) error {
		if name, isModule := strings.CutSuffix(d.Name(), ".ko"); err == nil && isModule {
			files[moduleName(name)] = path
		}
		return err
	})
	if err != nil {
		return k, err
	}
	for _, name := range modules {
		if err := k.add(files, name); err != nil {
			return k, err
		}
	}
	return k, nil
}

// add appends a module, after those that it depends on.
func (k *kernel) add(files map[string]string, name string) error {
	path, known := files[moduleName(name)]
	if !known {
		return fmt.Errorf("the kernel %s has no module %s", k.image, name)
	}
	if slices.Contains(k.modules, path) {
		return nil
	}
	needed, err := dependencies(path)
	if err != nil {
		return fmt.Errorf("module %s: %w", path, err)
	}
	for _, other := range needed {
		if err := k.add(files, other); err != nil {
			return err
		}
	}
	k.modules = append(k.modules, path)
	return nil
}

// moduleName returns the one of a module's two spellings that its name in other modules has.
func moduleName(name string) string { return strings.ReplaceAll(name, "-", "_") }

// dependencies reads from a module's file what other modules it needs.
func dependencies(path string) ([]string, error) {
	file, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	section := file.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no section .modinfo")
	}
	data, err := section.Data()
	if err != nil {
		return nil, err
	}
	for line := range bytes.SplitSeq(data, []byte{0}) {
		if names, found := strings.CutPrefix(string(line), "depends="); found && names != "" {
			return strings.Split(names, ","), nil
		}
	}
	return nil, nil
}
