package local

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Credentials are the keys of the local S3 server.
type Credentials struct {
	AccessKeyID     string `json:"access_key_id"`
	SecretAccessKey string `json:"secret_access_key"`
}

// ReadCredentials reads a credentials file. Errors don't repeat its content.
func ReadCredentials(path string) (Credentials, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Credentials{}, fmt.Errorf("read credentials: %w", err)
	}
	var c Credentials
	if err := json.Unmarshal(data, &c); err != nil || c.AccessKeyID == "" || c.SecretAccessKey == "" {
		return Credentials{}, fmt.Errorf("credentials file %s is damaged: delete it to get new ones", path)
	}
	return c, nil
}

// ensureCredentials reads the file, or makes it with random keys for this user
// only. Callers racing for the first one agree on it.
func ensureCredentials(path string) (Credentials, error) {
	if c, err := ReadCredentials(path); !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	data, err := json.Marshal(Credentials{AccessKeyID: rand.Text(), SecretAccessKey: rand.Text() + rand.Text()})
	if err != nil {
		return Credentials{}, fmt.Errorf("encode credentials: %w", err)
	}
	if err := writeOnce(path, data); err != nil {
		return Credentials{}, fmt.Errorf("write credentials: %w", err)
	}
	return ReadCredentials(path)
}

// writeOnce makes the file whole or not at all, and keeps one that is there.
func writeOnce(path string, data []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	defer os.Remove(file.Name()) //nolint:errcheck // the name is gone or a leftover of no use
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if err := os.Link(file.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("name: %w", err)
	}
	return nil
}
