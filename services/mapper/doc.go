// Package mapper translates between the API's messages and the domain, for
// every service of the control plane.
//
// All of it is pure. A function XToProto takes a domain value and returns its
// message, XFromProto the other way. A zero value of the domain that means
// "not set" becomes an unset field. Values of an enum that this version
// doesn't know become UNSPECIFIED, or the empty string; requests were
// validated before they get here.
package mapper
