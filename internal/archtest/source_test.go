package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// seeded are the names of math/rand and math/rand/v2 that draw from no hidden source.
var seeded = []string{"New", "NewPCG", "NewChaCha8", "NewZipf", "NewSource", "Rand", "Source", "PCG", "ChaCha8", "Zipf"}

// kernelFile says which names a file must have that touches the kernel.
func kernelFile(name string) bool {
	return strings.HasSuffix(name, "_linux.go") || strings.HasSuffix(name, "_unix.go")
}

// kernelImports are the imports that touch the kernel.
var kernelImports = []string{"golang.org/x/sys/unix", "github.com/vishvananda/", "github.com/cilium/ebpf", "github.com/containerd/cgroups", "github.com/hanwen/go-fuse"}

// check returns what a source file does that none may do.
func check(name string, src []byte) []string {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return []string{err.Error()}
	}
	var wrong []string
	say := func(at token.Pos, format string, a ...any) {
		wrong = append(wrong, fmt.Sprintf("%s: %s", fset.Position(at), fmt.Sprintf(format, a...)))
	}
	local := map[string]string{} // name in this file → import path
	for _, imp := range f.Imports {
		path, _ := strconv.Unquote(imp.Path.Value)
		as := strings.TrimSuffix(path, "/v2")
		as = as[strings.LastIndex(as, "/")+1:]
		if imp.Name != nil {
			as = imp.Name.Name
		}
		local[as] = path
		dir := filepath.ToSlash(filepath.Dir(name))
		if path == "testing" && !strings.HasSuffix(dir, "test") && !strings.HasSuffix(dir, "internal/needs") {
			say(imp.Pos(), "imports testing: product code must not carry flags and hooks of tests")
		}
		if slices.ContainsFunc(kernelImports, func(k string) bool { return strings.HasPrefix(path, k) }) && !kernelFile(name) && !strings.Contains(dir, "internal/deps") {
			say(imp.Pos(), "imports %s: files that touch the kernel end in _linux.go (or _unix.go)", path)
		}
		if path == "github.com/anishathalye/porcupine" && !strings.Contains(dir, "internal/deps") && filepath.Base(name) != "porcupine.go" {
			say(imp.Pos(), "imports porcupine outside porcupine.go")
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				return true
			}
			switch path := local[x.Name]; {
			case path == "time" && n.Sel.Name == "Sleep":
				say(n.Pos(), "time.Sleep: wait for the event, or poll with a ticker and a context")
			case (path == "math/rand" || path == "math/rand/v2") && !slices.Contains(seeded, n.Sel.Name):
				say(n.Pos(), "rand.%s draws from a global source: take a stream of internal/seed", n.Sel.Name)
			}
		case *ast.BasicLit:
			if n.Kind == token.STRING && (strings.HasPrefix(n.Value, `"failed to `) || strings.HasPrefix(n.Value, "`failed to ")) {
				say(n.Pos(), "%.30s...: errors are a path of verbs, that it failed is known", n.Value)
			}
		}
		return true
	})
	for _, group := range f.Comments {
		for _, c := range group.List {
			for _, w := range []string{"TODO", "FIXME", "XXX"} {
				if strings.HasPrefix(strings.TrimLeft(c.Text, "/* \t"), w) {
					say(c.Pos(), "%s: do it, or open an issue", w)
				}
			}
		}
	}
	return wrong
}

func TestSourceRules(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); path != root && (strings.HasPrefix(n, ".") || n == "testdata" || n == "vendor") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		rel, _ := filepath.Rel(root, path)
		for _, w := range check(rel, src) {
			t.Error(w)
		}
		return nil
	})
	if err != nil || files < 20 {
		t.Fatalf("walked %d files, %v", files, err)
	}
}

func TestSourceRulesBite(t *testing.T) {
	for _, tt := range []struct{ name, file, src, want string }{
		{"a global draw", "a.go", "package a\nimport \"math/rand/v2\"\nvar x = rand.IntN(3)", "draws from a global source"},
		{"a global draw under another name", "a.go", "package a\nimport r \"math/rand\"\nvar x = r.Float64()", "draws from a global source"},
		{"a seeded stream", "a.go", "package a\nimport \"math/rand/v2\"\nvar x = rand.New(rand.NewPCG(1, 2)).IntN(3)", ""},
		{"a sleep", "a.go", "package a\nimport \"time\"\nfunc f() { time.Sleep(1) }", "time.Sleep"},
		{"another Sleep", "a.go", "package a\nvar time struct{ Sleep func() }\nfunc f() { time.Sleep() }", ""},
		{"testing in product code", "a.go", "package a\nimport \"testing\"\nvar t testing.TB", "imports testing"},
		{"testing in a conformance suite", "faults/faultstest/a.go", "package a\nimport \"testing\"\nvar t testing.TB", ""},
		{"the kernel in a portable file", "a.go", "package a\nimport \"golang.org/x/sys/unix\"\nvar x = unix.EINVAL", "end in _linux.go"},
		{"the kernel where it belongs", "a_linux.go", "package a\nimport \"golang.org/x/sys/unix\"\nvar x = unix.EINVAL", ""},
		{"an error that says it failed", "a.go", "package a\nvar x = \"failed to open\"", "path of verbs"},
		{"work left", "a.go", "package a\n// TODO: this", "open an issue"},
		{"porcupine elsewhere", "checker/check.go", "package a\nimport \"github.com/anishathalye/porcupine\"\nvar x = porcupine.Ok", "outside porcupine.go"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(check(tt.file, []byte(tt.src)), "\n")
			if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("check = %q, want %q", got, tt.want)
			}
		})
	}
}
