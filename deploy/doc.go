// Package deploy is the tests of the files beside it. They have a module of their own, so that what knows Kubernetes is no
// dependency of the product.
package deploy
