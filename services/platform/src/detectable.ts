/** How small a difference a test could have seen. Pure. */

/** 97.5 % and 80 % quantiles of the standard normal distribution. */
const twoSided5 = 1.959963984540054;
const power80 = 0.8416212335729143;

/**
 * The smallest true difference that a two-sided test at 5 % finds with 80 %
 * probability: (1.960 + 0.842) standard errors of the difference. Source: H. S.
 * Bloom, "Minimum detectable effects", Evaluation Review 19 (1995) 547-556.
 * @param standardError of the paired difference, as it was found
 */
export function smallestDetectable(standardError: number): number {
  return (twoSided5 + power80) * standardError;
}
