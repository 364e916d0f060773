package cluster

import (
	"errors"
	"math/rand/v2"
)

// Select says which nodes the words of a selector mean, given what the nodes said.
func Select(words string, st []Status, rng *rand.Rand) ([]string, error) {
	return nil, errors.ErrUnsupported
}
