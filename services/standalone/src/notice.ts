/** The terms of the embedded teacher, which must be shown with it. */
export const gemmaNotice =
  "The embedded teacher is Gemma 3 270M. Gemma is provided under and subject to the Gemma Terms of Use\n" +
  "found at ai.google.dev/gemma/terms.";
