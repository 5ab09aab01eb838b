package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"talea/internal/resource"
	"talea/internal/world"
)

// maxSecret bounds the file of a secret, in bytes.
const maxSecret = 64 << 10

// ReadSource reads a resource file and the secrets that it refers to: `file:PATH` relative to the file, `env:NAME` from
// lookup. White space around a secret is not part of it; an empty one is an error. No error shows a secret.
func ReadSource(file string, lookup func(string) (string, bool)) (world.Source, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return world.Source{}, fmt.Errorf("cannot read the resources: %w", err)
	}
	src := world.Source{File: file, Text: text, Secrets: map[string]string{}, ManagedBy: "file"}
	refs, err := world.References(src)
	if err != nil {
		return src, err
	}
	var errs resource.Errors
	for _, ref := range refs {
		secret, err := readSecret(filepath.Dir(file), ref.Ref, lookup)
		if err != nil {
			errs.Add(ref.Pos.Errorf("%s: %v", ref.Ref, err))
			continue
		}
		src.Secrets[ref.Ref] = secret
	}
	return src, errs.Err()
}

func readSecret(dir, ref string, lookup func(string) (string, bool)) (string, error) {
	var text string
	if name, ok := strings.CutPrefix(ref, "env:"); ok {
		value, set := lookup(name)
		if !set {
			return "", errors.New("the environment variable is not set")
		}
		text = value
	} else {
		path := strings.TrimPrefix(ref, "file:")
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		b, err := readBounded(path)
		if err != nil {
			return "", err
		}
		text = string(b)
	}
	if text = strings.TrimSpace(text); text == "" {
		return "", errors.New("the secret is empty")
	}
	return text, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(b) > maxSecret {
		err = fmt.Errorf("%s is larger than %d bytes: that is no secret", path, maxSecret)
	}
	return b, err
}
