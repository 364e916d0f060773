package main

import (
	"io"
	"slices"
	"strings"
	"testing"
)

const (
	failingSubtest = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/a+b"}
{"Action":"output","Package":"p","Test":"TestA/a+b","Output":"    a_test.go:1: 3, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestA/a+b"}
{"Action":"run","Package":"p","Test":"TestA/c"}
{"Action":"pass","Package":"p","Test":"TestA/c"}
{"Action":"fail","Package":"p","Test":"TestA"}
`
	packageFails = `{"Action":"output","Package":"p","Output":"FAIL\n"}
{"Action":"fail","Package":"p"}
`
)

func TestWhatMayBeTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"the innermost tests that failed", failingSubtest + packageFails, []string{"p\t^TestA$/^a\\+b$\n"}},
		{"nothing failed", `{"Action":"pass","Package":"p","Test":"TestA"}`, nil},
		{"a panic", `{"Action":"output","Package":"p","Test":"TestA","Output":"panic: x\n"}` + "\n" + failingSubtest + packageFails, nil},
		{"a test that never ended", failingSubtest + `{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN TestB\n"}` + "\n" + packageFails, nil},
		{"a package without a failed test", packageFails, nil},
		{"another package without a failed test", failingSubtest + packageFails + strings.ReplaceAll(packageFails, `"p"`, `"q"`), nil},
		{"a build error", "# p\n" + failingSubtest + packageFails, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := summarize(strings.NewReader(tt.in), io.Discard)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("%q, %v, want %q", got, err, tt.want)
			}
		})
	}
}
