/** A difference of two shares in percentage points, with its sign: "+1.2", "−0.3". */
export function signedPoints(share: number): string {
  return `${share < 0 ? "−" : "+"}${Math.abs(share * 100).toFixed(1)}`;
}
