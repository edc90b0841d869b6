/** Which hosts are this machine and nobody else. */

/** @param host an IPv6 address with brackets, as a URL's hostname has it, or without */
export function isLoopback(host: string): boolean {
  return ["localhost", "::1", "[::1]"].includes(host) || /^127(\.\d{1,3}){3}$/.test(host);
}
