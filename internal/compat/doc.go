// Package compat runs real drivers, each through the same situations, directly against PostgreSQL and through the proxy in
// its pool modes, and compares what they got. It has tests only.
//
// There is one program a driver: drivers for Go are played by the tests themselves, those of other languages by programs in
// the directory of their language. A program says what it got in each situation as one line of JSON; the test knows which
// situations there have to be. The oracle is PostgreSQL: what a driver gets directly is what it has to get through the
// proxy.
//
// The invariant: a program that meets what it does not expect says so (a fault), and then the test fails even if the same
// happened directly. Two equal failures are not a success.
package compat
