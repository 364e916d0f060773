package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// pack writes an initramfs with all that the guest needs.
func pack(image, kernel string, chosen []suite) error {
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	defer f.Close()
	a := &archive{w: f, dirs: map[string]bool{}}
	m := manifest{Suites: chosen}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := a.copy("init", self); err != nil {
		return err
	}
	work := filepath.Dir(image)
	binary := filepath.Join(work, "binary")
	if err := build("build", "-trimpath", "-o", binary, "./cmd/brownout"); err != nil {
		return err
	}
	if err := a.copy("bin/brownout", binary); err != nil {
		return err
	}
	for _, s := range chosen {
		if !s.Test {
			continue
		}
		if err := build("test", "-c", "-trimpath", "-o", binary, s.Name); err != nil {
			return err
		}
		if err := a.copy(testFile(s.Name), binary); err != nil {
			return err
		}
		// Tests look for their testdata where they run.
		dir := filepath.Join(strings.TrimPrefix(s.Name, module), "testdata")
		if err := a.tree(path.Join(testDir(s.Name), "testdata"), dir); err != nil {
			return err
		}
	}
	if err := a.tree("testdata", "internal/vmtest/testdata"); err != nil {
		return err
	}
	if m.Modules, err = a.modules(kernel); err != nil {
		return err
	}
	for _, program := range programs {
		if err := a.program(program); err != nil {
			return err
		}
	}
	for _, dir := range []string{"proc", "sys", "dev", "tmp", "root", "etc", "run", "var/tmp", "new"} {
		if err := a.mkdir(dir); err != nil {
			return err
		}
	}
	if err := a.add("manifest.json", 0o100644, m.encode()); err != nil {
		return err
	}
	return a.close()
}

func testDir(pkg string) string { return "tests/" + strings.ReplaceAll(pkg, "/", "_") }

func testFile(pkg string) string { return testDir(pkg) + "/test" }

func build(args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// programs of the host that tests may use, with their libraries. One that the
// host lacks is left out: the tests that need it skip.
var programs = []string{"/sbin/mkfs.ext4"}

// libraries are where the host's loader looks, most specific first.
var libraries = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64"}

// program adds a host's program, or library, with what it is linked to.
func (a *archive) program(name string) error {
	f, err := elf.Open(name)
	if err != nil {
		return nil //nolint:nilerr // see programs
	}
	defer f.Close()
	if err := a.copy(strings.TrimPrefix(name, "/"), name); err != nil {
		return err
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(p.Open())
			if err != nil {
				return err
			}
			loader := string(bytes.TrimRight(b, "\x00"))
			if err := a.copy(strings.TrimPrefix(loader, "/"), loader); err != nil {
				return err
			}
		}
	}
	libs, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	for _, lib := range libs {
		for _, dir := range libraries {
			at := filepath.Join(dir, lib)
			if _, err := os.Stat(at); err != nil || a.has(at) {
				continue
			}
			if err := a.program(at); err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// modules adds kernel modules and what they depend on, and returns their names
// in the order in which they can be loaded.
func (a *archive) modules(kernel string) ([]string, error) {
	files := map[string]string{} // by name, which has - where another spelling has _
	plain := func(s string) string { return strings.ReplaceAll(s, "_", "-") }
	err := filepath.WalkDir(filepath.Join(kernel, "lib/modules"), func(p string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(p), ".ko"); ok {
			files[plain(name)] = p
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var order []string
	var add func(name string) error
	add = func(name string) error {
		file := files[plain(name)]
		if file == "" || slices.Contains(order, plain(name)+".ko") {
			return nil // built in, or absent: then the tests say so
		}
		f, err := elf.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		s := f.Section(".modinfo")
		if s == nil {
			return fmt.Errorf("%s has no .modinfo", file)
		}
		info, err := s.Data()
		if err != nil {
			return err
		}
		for field := range strings.SplitSeq(string(info), "\x00") {
			list, ok := strings.CutPrefix(field, "depends=")
			if !ok {
				list, ok = strings.CutPrefix(field, "softdep=pre: ")
			}
			if !ok {
				continue
			}
			for _, dep := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
				if err := add(dep); err != nil {
					return err
				}
			}
		}
		order = append(order, plain(name)+".ko")
		return a.copy("modules/"+plain(name)+".ko", file)
	}
	for _, name := range modules {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// An archive is a cpio in the form "newc", which the kernel unpacks at boot.
// See Documentation/driver-api/early-userspace/buffer-format.rst.
type archive struct {
	w     io.Writer
	dirs  map[string]bool
	files int
}

func (a *archive) has(name string) bool { return a.dirs[strings.TrimPrefix(name, "/")] }

func (a *archive) mkdir(name string) error {
	if name == "." || name == "/" || a.dirs[name] {
		return nil
	}
	if err := a.mkdir(path.Dir(name)); err != nil {
		return err
	}
	a.dirs[name] = true
	return a.entry(name, 0o040755, nil)
}

func (a *archive) add(name string, mode uint32, content []byte) error {
	if a.has(name) {
		return nil
	}
	if err := a.mkdir(path.Dir(name)); err != nil {
		return err
	}
	a.dirs[name] = true
	return a.entry(name, mode, content)
}

func (a *archive) copy(name, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return a.add(name, 0o100755, b)
}

// tree adds a directory, if it is there.
func (a *archive) tree(name, from string) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) && p == from {
			return filepath.SkipAll
		}
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		return a.copy(path.Join(name, filepath.ToSlash(rel)), p)
	})
}

func (a *archive) entry(name string, mode uint32, content []byte) error {
	a.files++
	head := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.files, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
	for _, part := range [][]byte{[]byte(head + name + "\x00"), content} {
		if _, err := a.w.Write(append(part, make([]byte, -len(part)&3)...)); err != nil {
			return err
		}
	}
	return nil
}

func (a *archive) close() error { return a.entry("TRAILER!!!", 0, nil) }
