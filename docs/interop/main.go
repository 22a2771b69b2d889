// Gives the verdicts of Go's checksum database packages on material that Evenkeel printed.
// Started by interop.py: material on standard input, verdicts on standard output.
package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type inclusion struct {
	Index  int64    `json:"index"`
	Size   int64    `json:"size"`
	Leaf   string   `json:"leaf"`
	Root   string   `json:"root"`
	Hashes []string `json:"hashes"`
}

type consistency struct {
	Old     int64    `json:"old"`
	New     int64    `json:"new"`
	OldRoot string   `json:"old_root"`
	NewRoot string   `json:"new_root"`
	Hashes  []string `json:"hashes"`
}

type signed struct {
	Note string `json:"note"`
	Key  string `json:"key"`
}

type material struct {
	Leaves      []string      `json:"leaves"`
	Inclusion   []inclusion   `json:"inclusion"`
	Consistency []consistency `json:"consistency"`
	Notes       []signed      `json:"notes"`
}

type verdicts struct {
	Roots       []string `json:"roots"`
	Inclusion   []bool   `json:"inclusion"`
	Consistency []bool   `json:"consistency"`
	Notes       []bool   `json:"notes"`
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func hash(text string) (h tlog.Hash) {
	bytes, err := hex.DecodeString(text)
	check(err)
	if len(bytes) != len(h) {
		check(fmt.Errorf("a hash of %d bytes", len(bytes)))
	}
	copy(h[:], bytes)
	return h
}

func hashes(texts []string) (all []tlog.Hash) {
	for _, text := range texts {
		all = append(all, hash(text))
	}
	return all
}

// The roots of the log's first 1, 2, 3, ... entries, made from their leaves.
func roots(leaves []string) (all []string) {
	var stored []tlog.Hash
	read := tlog.HashReaderFunc(func(indexes []int64) (found []tlog.Hash, err error) {
		for _, index := range indexes {
			found = append(found, stored[index])
		}
		return found, nil
	})
	for n, leaf := range leaves {
		data, err := hex.DecodeString(leaf)
		check(err)
		more, err := tlog.StoredHashes(int64(n), data, read)
		check(err)
		stored = append(stored, more...)
		root, err := tlog.TreeHash(int64(n)+1, read)
		check(err)
		all = append(all, hex.EncodeToString(root[:]))
	}
	return all
}

func opens(one signed) bool {
	text, err := hex.DecodeString(one.Note)
	check(err)
	verifier, err := note.NewVerifier(one.Key)
	check(err)
	_, err = note.Open(text, note.VerifierList(verifier))
	return err == nil
}

func main() {
	var in material
	check(json.NewDecoder(os.Stdin).Decode(&in))
	out := verdicts{Roots: roots(in.Leaves)}
	for _, p := range in.Inclusion {
		err := tlog.CheckRecord(hashes(p.Hashes), p.Size, hash(p.Root), p.Index, hash(p.Leaf))
		out.Inclusion = append(out.Inclusion, err == nil)
	}
	for _, p := range in.Consistency {
		err := tlog.CheckTree(hashes(p.Hashes), p.New, hash(p.NewRoot), p.Old, hash(p.OldRoot))
		out.Consistency = append(out.Consistency, err == nil)
	}
	for _, one := range in.Notes {
		out.Notes = append(out.Notes, opens(one))
	}
	check(json.NewEncoder(os.Stdout).Encode(out))
}
