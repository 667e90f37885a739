/* Stands in for GnuTLS in CRIU, which loads it for a transport of pages that is never used here.
 *
 * GnuTLS and the seven libraries that it brings take 2 ms of the 3.5 that CRIU needs to start, and it
 * starts for each dump and each restore. Preloaded into CRIU under GnuTLS's name, so that the real
 * one is not looked for. CRIU binds functions when it calls them, and calls none of these; what
 * it binds at its start is the one pointer. The version of its symbols is in the .map beside this.
 */

void (*gnutls_free)(void *);
