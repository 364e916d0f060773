package main

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The test binary is brownout when it is called so, and each of its helpers
// when brownout starts itself again.
func TestMain(m *testing.M) {
	if code, ok := helper(os.Args); ok {
		os.Exit(code)
	}
	testscript.Main(m, map[string]func(){"brownout": main})
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script", RequireUniqueNames: true})
}
